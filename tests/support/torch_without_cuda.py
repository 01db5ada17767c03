"""Makes the `torch` of this environment importable without the CUDA libraries that its wheel is linked with.

The wheel on PyPI needs about 3 GB of them even where only the CPU is used: the dynamic linker wants the files and every name in them.
This builds small stand-ins with the C compiler: each function returns 100 (cudaErrorNoDevice), or a text where one is asked for, as
the real ones do on a machine without a GPU; so torch finds no GPU and goes on.
Run by tools/setup; does nothing where no library is missing."""
import glob, importlib.util, os, re, subprocess, sys, tempfile

folder = os.path.join(importlib.util.find_spec("torch").submodule_search_locations[0], "lib")
present = set(os.listdir(folder))
missing, names = set(), {}


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


for library in glob.glob(os.path.join(folder, "*.so")):
    missing |= set(re.findall(r"NEEDED.*\[(lib(?:cu|nccl|nv)[^\]]*)\]", output("readelf", "-d", library))) - present
    undefined = output("nm", "-D", "--undefined-only", "--with-symbol-versions", library)
    for name, version in re.findall(r" U (\w+)(?:@(\S+))?$", undefined, re.M):
        if re.match(r"_*(cu|nccl|nv)", name):
            names.setdefault(version, set()).add(name)

code = {"x86_64": ("movl $100, %eax\nret\n", "leaq text(%rip), %rax\nret\n"),
        "aarch64": ("mov w0, #100\nret\n", "adr x0, text\nret\n")}.get(os.uname().machine)
if missing and not code:
    sys.exit(f"no stand-ins for CUDA libraries on {os.uname().machine}")
# every stand-in has all names, each under the version that torch asks for
every = sorted(set().union(*names.values())) if names else []
texts = [name for name in every if re.search(r"(ErrorString|ErrorName|GetLastErrorMessage|StatusString|StatusName)$", name)]
labels = lambda group: "".join(f".globl {name}\n{name}:\n" for name in group)
source = (".text\n" + labels(sorted(set(every) - set(texts))) + (code or ("", ""))[0] + labels(texts) + (code or ("", ""))[1]
          + 'text: .asciz "there are no CUDA libraries in this environment"\n')
versions = "".join(f"{version} {{ {'; '.join(sorted(group))}; }};\n" for version, group in names.items() if version)
with tempfile.NamedTemporaryFile("w", suffix=".map") as script:
    script.write(versions)
    script.flush()
    for library in sorted(missing):
        subprocess.run(["cc", "-shared", "-nostdlib", "-x", "assembler", "-", f"-Wl,-soname,{library}",
                        f"-Wl,--version-script,{script.name}", "-o", os.path.join(folder, library)],
                       check=True, text=True, input=source)
print(f"stand-ins for {len(missing)} CUDA libraries")
