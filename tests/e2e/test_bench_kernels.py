"""skillwatch bench --kernels: every operator that computes has rows, on the CPU and with the CUDA kernels; figures that fit together."""
import json, math, os, re, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import ROOT, Checks, program

check = Checks()
header = open(os.path.join(ROOT, "kernels/backend.h"), encoding="utf-8").read()
operators = set(re.findall(r"X\((\w+)\)", header[header.index("#define SW_OPERATOR_LIST"):header.index("typedef struct {\n#define X(name)")]))
computing = {o for o in operators if not o.endswith(("_workspace", "_bytes"))}
check(len(computing) > 15, f"the operators were not found: {operators}")
NUMBERS = ("value", "ms_min", "ms_median", "samples", "calls", "bytes", "multiply_adds", "gb_per_second", "tflop_per_second", "percent_of_copy", "percent_of_peak")
found = {}
for device in ("cpu", "cuda-emulated"):
    done = program("bench", "--kernels", "--quick", "--json", "--device", device)
    if not check(done.returncode == 0 and not done.stderr, f"{device}: {done.stderr}"): continue
    rows = json.loads(done.stdout)
    for r in rows:
        check(all(isinstance(r[k], (int, float)) and math.isfinite(r[k]) and r[k] >= 0 for k in NUMBERS) and r["shape"] and r["model"] and r["unit"] and
              r["dtype"] in ("fp32", "bf16") and r["device"].startswith(device) and 0 < r["ms_min"] <= r["ms_median"] and r["bytes"] + r["multiply_adds"] > 0, f"{r}")
        near = lambda a, b: math.isclose(a, b, rel_tol=1e-6)
        check(near(r["gb_per_second"], r["bytes"] / r["ms_median"] * 1e-6) and near(r["tflop_per_second"], 2 * r["multiply_adds"] / r["ms_median"] * 1e-9), f"rates of {r}")
    names = {r["what"] for r in rows}
    check(names == computing | {"copy", "matrix product", "training step", "embed titles"}, f"{device}: {names ^ computing}")
    found[device] = {(r["what"], r["model"], r["shape"], r["dtype"]): (r["bytes"], r["multiply_adds"]) for r in rows}
    check(len(found[device]) == len(rows), "rows that cannot be told apart")
    text = program("bench", "--kernels", "--quick", "--device", device)
    check(text.returncode == 0 and len(text.stdout.splitlines()) == len(rows) + 2, f"the table has a line a row, and two above: {text.stdout}")
if check(len(found) == 2 and found["cpu"] == found["cuda-emulated"], "the same work on every device"):
    # by hand, for 2 sequences of 12 tokens, hidden 32, 2 heads of 16
    work = found["cpu"]
    h, t = 32, 24
    check(work["linear_forward", "tiny", "24 x 32 to 96", "fp32"] == (4 * (t * h + 3 * h * h + 3 * h + 3 * t * h), t * h * 3 * h), "linear")
    check(work["attention_forward", "tiny", "2 x 12, 2 heads of 16", "bf16"] == (4 * 3 + 2 * (3 * t * h + t * h) + 4 * t * 2, 2 * 2 * 12 * 12 * h), "attention")
    check(work["attention_backward", "tiny", "2 x 12, 2 heads of 16", "fp32"] == (4 * 3 + 4 * (3 + 1 + 1 + 3) * t * h + 4 * t * 2, 5 * 2 * 12 * 12 * h), "its gradient")
    check(work["layernorm_forward", "tiny", "24 x 32, residual, dropout", "bf16"] == (2 * 4 * t * h + 4 * (2 * h + 2 * t), 0), "LayerNorm")
    check(work["cast", "tiny", "24 x 64, fp32 to bf16", "bf16"] == (6 * 24 * 64, 0), "cast")
    # 9 cells, 4 sequences of 5 tokens; 6 queries, 12 candidates of 8; 5 queries, 30 rows of 8, k 3
    check(work["gru_forward", "-", "4 x 5, 9 cells", "bf16"] == (4 * 5 + 2 * 20 * 9 * (3 + 3 + 1 + 1) + 4 * 27 * 10, 20 * 27 * 9), "GRU")
    check(work["gru_backward", "-", "32 x 5, 9 cells", "fp32"] == (4 * 33 + 4 * 160 * 9 * (2 * 3 + 2 + 1 + 1) + 4 * 27 * (9 + 2 * 9 + 2), 2 * 160 * 27 * 9), "its gradient")
    check(work["contrastive", "-", "6 x 12 x 8", "fp32"] == (4 * (2 * 18 * 8 + 6) + 2 * 8, 4 * 6 * 12 * 8), "contrastive")
    check(work["neighbours", "-", "5 of 30 x 8, k 3, distances", "fp32"] == (4 * 35 * 8 + 12 * 15, 5 * 30 * 8), "neighbours")
    # 40 points, 14 neighbours, 20 edges
    check(work["umap_weights", "-", "40 x 14", "fp32"] == (4 * 2 * 40 * 14, 0), "weights of neighbours")
    check(work["umap_multiply", "-", "40 rows of 20 edges", "fp32"] == (8 * 41 + 4 * (2 * 800 + 2 * 40 * 8), 800 * 8), "a product of the graph")
    check(work["umap_layout", "-", "an epoch of 40 points, 400 edges", "fp32"] == (4 * (3 * 400 + 2 * 40 * 2), 0), "a layout's epoch")
    check(work["umap_place", "-", "an epoch of 40 rows, 20 edges each", "fp32"] == (8 * 41 + 8 * 40 + 4 * (2 * 800 + 3 * 40 * 2), 0), "placing's epoch")
    check(work["umap_ranks", "-", "5 of 30 x 8, k 14", "fp32"] == (4 * 35 * 8 + 8 * 5 + 12 * 70, 5 * 30 * 8), "ranks")
    # 4 documents of 64 words, 3 topics in rows of 16, 2 iterations; 100 words
    check(work["lda_beta", "-", "100 words, 3 topics", "fp32"] == (4 * 2 * 100 * 16, 0), "beta")
    check(work["lda_documents", "-", "4 of 64 words, 3 topics, 2 iterations", "fp32"] == (8 * 5 + 4 * 3 * 256 + 4 * 16 * (100 + 3 * 4), 2 * 2 * 256 * 3), "documents")
    check(work["lda_update", "-", "256 entries, 100 words, 3 topics", "fp32"] == (8 * (101 + 256) + 4 * 2 * 256 + 4 * 16 * (4 + 3 * 100), 256 * 3), "update")
    # 40 rows of 8, 2 starts of 3 centres; in an update every row comes to a first centre
    check(work["kmeans_assign", "-", "40 x 8, 2 starts of 3", "fp32"] == (4 * (40 * 8 + 6 * 8 + 2 * 80), 40 * 6 * 8), "k-means")
    check(work["kmeans_update", "-", "40 x 8, 2 starts of 3", "fp32"] == (4 * (40 * 8 + 2 * 80) + 8 * (2 * 2 * 8 + 2 * 2 + 2), 0), "its sums")
    check(work["training step", "tiny", "2 sequences, 24 tokens", "fp32"] == (0, 3 * (t * (4 * h * h + 2 * h * 64) + 2 * h * 2 * 12 * 12)), "a step")
for args, part in ((["--kernels", "--sequences", "0"], "--sequences"), (["--quick"], "-m is missing"), (["--kernels", "--titles", "x"], "-m is missing")):
    check.refused(program("bench", *args), part, str(args), status=(2,))
done = program("bench", "--kernels", "--quick", "--json", "--device", "cpu", "--operator", "cast", "--operator", "dropout")
check(done.returncode == 0 and {r["what"] for r in json.loads(done.stdout)} == {"copy", "matrix product", "cast", "dropout"}, f"--operator: {done.stderr}")
check.refused(program("bench", "--kernels", "--quick", "--operator", "linear_workspace"), "linear_workspace", "an operator that does not compute", status=(1,))
check.close()
