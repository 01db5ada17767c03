# The CUDA backend, a module of its own (kernels/module.h), built where a CUDA toolkit is. Without one the CPU engine is all there is.
# Which toolkit: CMAKE_CUDA_COMPILER or CUDACXX where they say, otherwise the first nvcc that is new enough in CUDA_PATH, PATH,
# /usr/local/cuda and where `tools/setup --cuda` puts one.
set(SW_CUDA AUTO CACHE STRING "The CUDA module: AUTO (where nvcc is), ON (an error where it is not), OFF")
set_property(CACHE SW_CUDA PROPERTY STRINGS AUTO ON OFF)
set(SW_CUDA_OLDEST 12.0)

function(sw_cuda_none reason)
  if(SW_CUDA STREQUAL "AUTO")
    message(STATUS "${reason}: building for the CPU only")
  else()
    message(FATAL_ERROR "SW_CUDA=${SW_CUDA}, but ${reason}. Install the packages cuda-nvcc-13-0, cuda-cudart-dev-13-0 and "
                        "libcublas-dev-13-0 of NVIDIA's repository, or run: tools/setup --cuda")
  endif()
endfunction()
function(sw_cuda_new_enough result nvcc)
  execute_process(COMMAND ${nvcc} --version OUTPUT_VARIABLE text ERROR_QUIET)
  if(NOT text MATCHES "release ([0-9.]+)")
    message(STATUS "${nvcc} does not run: passed over")
    set(${result} FALSE PARENT_SCOPE)
  elseif(CMAKE_MATCH_1 VERSION_LESS SW_CUDA_OLDEST)
    message(STATUS "${nvcc} is CUDA ${CMAKE_MATCH_1}, ${SW_CUDA_OLDEST} is needed: passed over")
    set(${result} FALSE PARENT_SCOPE)
  endif()
endfunction()

if(NOT SW_CUDA)
  return()
endif()
if(SW_SANITIZE OR SW_COVERAGE OR SW_FUZZ)
  # They look at host code, and a kernel's host code is a launch; the kernels themselves are tested by the emulated backend, under sanitizers too.
  if(SW_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SW_CUDA=ON goes neither with sanitizers nor with coverage nor with fuzzing: use another build folder")
  endif()
  return()
endif()
if(NOT CMAKE_CUDA_COMPILER)
  unset(CMAKE_CUDA_COMPILER CACHE) # what an earlier run did not find may be there now
  unset(CMAKE_CUDA_COMPILER)
  set(cache $ENV{XDG_CACHE_HOME})
  if(NOT cache)
    set(cache $ENV{HOME}/.cache)
  endif()
  if(NOT DEFINED ENV{CUDACXX})
    find_program(SW_NVCC nvcc HINTS ENV CUDA_PATH PATHS /usr/local/cuda ${cache}/skillwatch/cuda PATH_SUFFIXES bin VALIDATOR sw_cuda_new_enough)
    if(NOT SW_NVCC)
      sw_cuda_none("no CUDA toolkit (nvcc ${SW_CUDA_OLDEST} or newer) was found")
      return()
    endif()
    set(ENV{CUDACXX} ${SW_NVCC})
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    unset(SW_NVCC CACHE) # another one may be there next time
    sw_cuda_none("$ENV{CUDACXX} cannot compile here (${CMAKE_BINARY_DIR}/CMakeFiles/CMakeError.log says why; g++ is needed, too)")
    return()
  endif()
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual) # A100, H100, and PTX for what comes after
endif()
enable_language(CUDA)
find_path(CUBLASLT_INCLUDE cublasLt.h HINTS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
find_library(CUBLASLT_LIBRARY cublasLt HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES})
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS SW_CUDA_OLDEST)
  sw_cuda_none("${CMAKE_CUDA_COMPILER} is CUDA ${CMAKE_CUDA_COMPILER_VERSION}, ${SW_CUDA_OLDEST} is needed")
  return()
elseif(NOT CUBLASLT_INCLUDE OR NOT CUBLASLT_LIBRARY)
  sw_cuda_none("cuBLASLt (cublasLt.h, libcublasLt.so) was not found beside ${CMAKE_CUDA_COMPILER}")
  return()
endif()
message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}: building the CUDA module (${CMAKE_CUDA_COMPILER})")

foreach(config RELEASE RELWITHDEBINFO DEBUG)
  set(CMAKE_CUDA_FLAGS_${config} "-O3") # for a profiler: -DCMAKE_CUDA_FLAGS=-lineinfo, which makes the module five times as large
endforeach()
file(GLOB CUDA_SOURCES CONFIGURE_DEPENDS kernels/*/*.cu)
add_library(skillwatch_cuda MODULE ${CUDA_SOURCES})
set_target_properties(skillwatch_cuda PROPERTIES
  PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/modules
  CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS ON CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY Static
  # nvcc takes the host compiler's options in its own way only, so these replace the ones of the C files
  COMPILE_OPTIONS "-Xcompiler=-Wall,-Wextra,-Wno-unused-parameter,-Wno-psabi;-Werror=all-warnings")
if(CCACHE)
  set_target_properties(skillwatch_cuda PROPERTIES CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
target_include_directories(skillwatch_cuda SYSTEM PRIVATE ${CUBLASLT_INCLUDE})
target_link_libraries(skillwatch_cuda PRIVATE ${CMAKE_DL_LIBS})
# Nothing but sw_backend_module is exported, of the static CUDA runtime and the C++ library neither.
target_link_options(skillwatch_cuda PRIVATE LINKER:--version-script=${CMAKE_SOURCE_DIR}/kernels/cuda/exports.map LINKER:--enable-new-dtags)
set_property(TARGET skillwatch_cuda APPEND PROPERTY LINK_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/exports.map)
# libcublasLt.so is opened at run time (kernels/linear/cublaslt.cu): it is large, has its own place on every machine, and 12 will do where 13 is
# not. LD_LIBRARY_PATH goes first; then a copy beside the module, the toolkit
# it was built with, NVIDIA's usual folder, the system's. So are libnccl.so.2 (kernels/cuda/nccl.cu) and libcudnn.so.9 (kernels/gru/cudnn.cu), which may be missing.
get_filename_component(CUBLASLT_FOLDER ${CUBLASLT_LIBRARY} DIRECTORY)
set_target_properties(skillwatch_cuda PROPERTIES BUILD_RPATH "${CUBLASLT_FOLDER}" INSTALL_RPATH "$ORIGIN;${CUBLASLT_FOLDER};/usr/local/cuda/lib64")
install(TARGETS skillwatch_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/skillwatch)
