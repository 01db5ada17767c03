# Writes OUT, which says what code this is: the version, and the commit where the source is a git checkout. Run at every build.
cmake_minimum_required(VERSION 3.25)
execute_process(COMMAND git -C ${SOURCE} rev-parse --show-toplevel OUTPUT_VARIABLE top OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
set(code ${VERSION})
if(top STREQUAL SOURCE)
  execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=* OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  string(APPEND code "+${commit}")
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#include \"base/version.h\"\nconst char sw_code_version[] = \"@code@\";\n" @ONLY) # untouched where nothing changed
