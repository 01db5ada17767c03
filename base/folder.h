/* Folders that are written whole: a new one is made beside the destination and renamed to it. */
#ifndef SW_BASE_FOLDER_H
#define SW_BASE_FOLDER_H

typedef struct {
  char *folder, *temporary; /* owned; write into `temporary`. NULL: not open */
  int descriptor;
} sw_output_folder;

/* `ours`, ended by NULL: all that such a folder may hold, as names or as "*.csv"; `what` writes it ("export"), for messages. An existing folder
 * that is not empty is replaced only with `force`, and only where it holds nothing else: not somebody's folder. A symbolic link is followed. */
int sw_output_folder_open(sw_output_folder *out, const char *folder, const char *const *ours, const char *what, int force);
/* Puts the new folder in its place, the older one at once out of it (and removes that). On failure the destination is as it was. */
int sw_output_folder_commit(sw_output_folder *out);
/* Removes what was written; does nothing after a commit or on a zeroed struct. */
void sw_output_folder_abandon(sw_output_folder *out);
#endif
