/* An epoch's order: every new item once, replayed ones in their part of any stretch, each before any comes again. */
#include "train/order.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static void new_items_only(void **state) {
  (void)state;
  sw_order a, b;
  assert_int_equal(sw_order_open(7, 1000, NULL, 0, &a), 0);
  assert_int_equal(sw_order_open(7, 1000, NULL, 0, &b), 0);
  assert_int_equal(a.count, 1000);
  unsigned char seen[1000] = {0};
  sw_order_epoch(&a, 3);
  for (size_t i = 0; i < 1000; i++) {
    assert_true(a.items[i] < 1000 && !seen[a.items[i]]);
    seen[a.items[i]] = 1;
  }
  sw_order_epoch(&b, 0);
  assert_memory_not_equal(a.items, b.items, 1000 * sizeof *a.items);
  sw_order_epoch(&b, 3); /* follows from seed and epoch alone */
  assert_memory_equal(a.items, b.items, 1000 * sizeof *a.items);
  sw_order_close(&a);
  sw_order_close(&b);
}

static void replayed(void **state) {
  (void)state;
  enum { NEW = 700, OLD = 90, OLDER = 2000, BATCH = 40, EPOCHS = 5 };
  const sw_replay replays[] = {{NEW, OLD, 0.25}, {NEW + OLD, OLDER, 0.1}};
  sw_order o;
  assert_int_equal(sw_order_open(1, NEW, replays, 2, &o), 0);
  assert_true(o.count >= 1076 && o.count <= 1078); /* 700 / 0.65 */
  int times[NEW + OLD + OLDER] = {0};
  for (int epoch = 0; epoch < EPOCHS; epoch++) {
    sw_order_epoch(&o, epoch);
    for (size_t first = 0; first + BATCH <= o.count; first += BATCH) {
      int old = 0, older = 0;
      for (size_t i = first; i < first + BATCH; i++) {
        old += o.items[i] >= NEW && o.items[i] < NEW + OLD;
        older += o.items[i] >= NEW + OLD;
      }
      assert_in_range(old, 9, 11);
      assert_in_range(older, 3, 5);
    }
    for (size_t i = 0; i < o.count; i++) {
      assert_true(o.items[i] < NEW + OLD + OLDER);
      times[o.items[i]]++;
    }
  }
  int least = 1 << 30, most = 0;
  for (int i = 0; i < NEW; i++) assert_int_equal(times[i], EPOCHS);
  for (int i = NEW; i < NEW + OLD; i++) {
    if (times[i] < least) least = times[i];
    if (times[i] > most) most = times[i];
  }
  assert_true(least >= 14 && most - least <= 1); /* each has its turn before any comes again */
  for (int i = NEW + OLD; i < NEW + OLD + OLDER; i++) assert_true(times[i] <= 1);
  sw_order_close(&o);
}

/* A replay of one item, and parts that leave little for the new ones. */
static void small(void **state) {
  (void)state;
  const sw_replay replays[] = {{2, 1, 0.5}, {3, 2, 0.4}};
  sw_order o;
  assert_int_equal(sw_order_open(1, 2, replays, 2, &o), 0);
  for (int epoch = 0; epoch < 3; epoch++) {
    sw_order_epoch(&o, epoch);
    int times[5] = {0};
    for (size_t i = 0; i < o.count; i++) times[o.items[i]]++;
    assert_true(times[0] == 1 && times[1] == 1);
    assert_in_range(times[2], 8, 11);
    assert_in_range(times[3] + times[4], 6, 9);
  }
  sw_order_close(&o);
  assert_int_equal(sw_order_open(1, 2, replays, SW_MAX_REPLAYS + 1, &o), -1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(new_items_only), cmocka_unit_test(replayed), cmocka_unit_test(small)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
