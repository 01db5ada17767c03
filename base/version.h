/* What code this is: "0.1.0+acf6666c1d2e", the version and the commit it was built from ("-dirty": with changes), or the version alone where the
 * source was no git checkout. Made at every build (cmake/version.cmake). */
#ifndef SW_BASE_VERSION_H
#define SW_BASE_VERSION_H
extern const char sw_code_version[];
#endif
