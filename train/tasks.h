/* The tasks of skillwatch-train. Each takes its own arguments (argv[0] is the task's name) and returns an exit status. */
#ifndef SW_TRAIN_TASKS_H
#define SW_TRAIN_TASKS_H
int sw_train_mlm(int argc, char **argv);
int sw_train_embed(int argc, char **argv);
int sw_train_classify(int argc, char **argv);
int sw_train_multilabel(int argc, char **argv);
int sw_train_ner(int argc, char **argv);
int sw_train_topics(int argc, char **argv);
#endif
