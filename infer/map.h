/* A map in a file, for who places points on it. */
#ifndef SW_INFER_MAP_H
#define SW_INFER_MAP_H
#include "engine/space/umap.h"
#include "infer/usable.h"

/* Opens the file: its vectors, the coordinates of all of them [file.rows, components] (free() them, in any case) and the options it was made with. */
int sw_map_open(const char *path, sw_usable *vectors, float **coordinates, sw_umap_options *umap);
/* Whether a vector can be placed; context: the map's sw_umap_options. */
sw_row_check sw_map_check_row;
#endif
