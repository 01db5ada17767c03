# sw_embed_file(target name path): the file at `path` becomes part of `target`, byte for byte, and is read anew when it changes.
# C sees it after SW_EMBEDDED(name) of base/embedded.h, as name[] and name_size. The assembler reads the file: a large one costs no compile time.
function(sw_embed_file target name path)
  get_filename_component(path ${path} ABSOLUTE)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/embedded/${name}.c)
  file(CONFIGURE OUTPUT ${source} @ONLY CONTENT [[
__asm__(".pushsection .rodata\n"
        ".globl @name@, @name@_size\n"
        ".balign 8\n"
        "@name@: .incbin \"@path@\"\n"
        "1: .byte 0\n"
        ".balign 8\n"
        "@name@_size: .quad 1b - @name@\n"
        ".popsection\n");
]])
  set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS ${path})
  target_sources(${target} PRIVATE ${source})
endfunction()
