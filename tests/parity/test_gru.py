"""States and every gradient of the GRU on random packed sequences against torch.nn.GRU, in both directions: on the CPU, and with the CUDA
kernels in the emulator."""
import os, subprocess, sys, tempfile

import torch
from safetensors.torch import load_file, save_file

TOOLS = os.environ["SW_TESTS_BIN"]
INPUT, failures = 11, 0


def check(name, got, want, limit):
    global failures
    error = ((got - want.reshape(-1)).abs().max() / want.abs().max()).item()
    ok = error <= limit  # a NaN fails
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {name}: {error:.3g} (limit {limit:g})")


def case(device, hidden, reverse, seed):
    torch.manual_seed(seed)
    lengths = torch.randint(1, 14, (9,)).tolist()
    # PyTorch's backward direction is the second half of a bidirectional layer; the first half gets no gradient
    gru = torch.nn.GRU(INPUT, hidden, bidirectional=bool(reverse))
    parameter = lambda n: getattr(gru, n + ("_l0_reverse" if reverse else "_l0"))
    x = torch.randn(sum(lengths), INPUT, requires_grad=True)
    dy, initial = torch.randn(sum(lengths), hidden), torch.randn(len(lengths), hidden, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_sequence(x.split(lengths), enforce_sorted=False)
    start = torch.stack([torch.zeros_like(initial), initial]) if reverse else initial[None]
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(gru(packed, start)[0], batch_first=True)
    y = torch.cat([p[:n, -hidden:] for p, n in zip(padded, lengths)])
    y.backward(dy)
    with torch.no_grad():
        gates = x @ parameter("weight_ih").T + parameter("bias_ih")
    with tempfile.TemporaryDirectory() as folder:
        source, result = folder + "/in.safetensors", folder + "/out.safetensors"
        save_file({"gates": gates, "weight": parameter("weight_hh").detach(), "bias": parameter("bias_hh").detach(),
                   "initial": initial.detach(), "dy": dy}, source)
        subprocess.run([TOOLS + "/tool-gru", device, source, result, str(reverse), *map(str, lengths)], check=True,
                       env=dict(os.environ, SKILLWATCH_MODULES=TOOLS + "/modules"))
        got = load_file(result)
    what = f"{device} hidden {hidden}{' reverse' if reverse else ''}"
    dgates = got["gates"].reshape(-1, 3 * hidden)
    check(what + " y", got["y"], y.detach(), 2e-6)
    check(what + " dx", (dgates @ parameter("weight_ih").detach()).reshape(-1), x.grad, 1e-5)
    check(what + " dweight_ih", (dgates.T @ x.detach()).reshape(-1), parameter("weight_ih").grad, 1e-5)
    check(what + " dbias_ih", dgates.sum(0), parameter("bias_ih").grad, 1e-5)
    check(what + " dweight_hh", got["weight"], parameter("weight_hh").grad, 1e-5)
    check(what + " dbias_hh", got["bias"], parameter("bias_hh").grad, 1e-5)
    check(what + " dinitial", got["initial"], initial.grad, 1e-5)


for device in "cpu", "cuda-emulated":
    for seed, hidden in enumerate((7, 48, 180)):
        for reverse in 0, 1:
            if device == "cpu" or hidden < 180: case(device, hidden, reverse, seed)
sys.exit(1 if failures else 0)
