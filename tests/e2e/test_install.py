"""What `cmake --install` leaves: programs that find each other wherever they lie and however they are called, and manual pages."""
import json, os, re, shutil, subprocess, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, Checks, tiny_bert, vocabulary

BUILD = os.path.dirname(os.path.abspath(BIN))
check = Checks()


def cache_entry(name):
    with open(os.path.join(BUILD, "CMakeCache.txt")) as f: return re.search(rf"^{name}:\w+=(.*)$", f.read(), re.M).group(1)


def install(*arguments, **environment):
    done = subprocess.run([cache_entry("CMAKE_COMMAND"), "--install", BUILD, *arguments], capture_output=True, text=True, env=os.environ | environment)
    check(done.returncode == 0, f"install {arguments}: {done.stderr}")


def files_below(folder):
    return {os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names}


def run(*command, path="/nonexistent", **options):
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": path, "LC_ALL": "C.UTF-8"}, **options)


def test_programs(folder, work, model):
    """`folder` holds the installed tree; PATH names no other place where siblings could be found."""
    bin = os.path.join(folder, "bin")
    link, again = os.path.join(work, "links", "sw"), os.path.join(work, "links", "again")
    os.makedirs(os.path.dirname(link))
    os.symlink(os.path.relpath(os.path.join(bin, "skillwatch"), os.path.dirname(link)), link)
    os.symlink("sw", again)
    calls = {"its path": ([os.path.join(bin, "skillwatch")], {}), "a relative path": (["./skillwatch"], {"cwd": bin}), "a link": ([link], {}),
             "a link to a link": ([again], {}), "PATH": (["/usr/bin/env", "skillwatch"], {"path": bin})}
    for how, (command, options) in calls.items():
        done = run(*command, "--help", **options)
        check(done.returncode == 0 and re.findall(r"^  (pull|train|infer|show) ", done.stdout, re.M) == ["pull", "show", "train", "infer"],
              f"skillwatch --help by {how}: {done.stdout} {done.stderr}")
        checkpoint = os.path.join(work, "tiny.h5")
        done = run(*command, "pull", model, "-o", checkpoint, "--quiet", **options)
        check(done.returncode == 0, f"pull by {how}: {done.stderr}")
        done = run(*command, "show", "--json", checkpoint, **options)
        check(done.returncode == 0 and json.loads(done.stdout)["config"]["hidden_size"] == 32, f"show by {how}: {done.stderr}")
        os.remove(checkpoint)
    shutil.rmtree(os.path.dirname(link))


def test_pages(folder, programs):
    pages = files_below(folder)
    tasks = {"skillwatch-train": "ner", "skillwatch-infer": "tag"}
    expected = {f"{name}.1" for name in programs} | {f"{name}-{task}.1" for name, task in tasks.items()}
    check(expected <= pages, f"pages are missing: {expected - pages}")
    for page in sorted(pages):
        name = page[:-2]
        parent = next((p for p in tasks if name.startswith(p + "-")), None)
        command = [parent, name[len(parent) + 1:]] if parent else [name]
        help = run(os.path.join(BIN, command[0]), *command[1:], "--help").stdout
        done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", "-P-cbou", os.path.join(folder, page)], capture_output=True, text=True)
        check(done.returncode == 0 and not done.stderr, f"{page}: {done.stderr}")
        text = " ".join(re.sub("\u2010\n *", "", done.stdout).split())  # hyphens at line ends
        check(re.search(rf"NAME {name} - \w.* \w.* SYNOPSIS", text), f"{page} does not say what it is about: {text[:200]}")
        check("SYNOPSIS " + help.splitlines()[0].removeprefix("usage: ") in text, f"{page} has another usage than --help")
        words = set(re.findall(r"--[a-z][a-z-]+|\[[^\]]+\]|\w+", help)) - {"usage"}
        lacking = {word for word in words if word.lower() not in text.lower()}
        check(not lacking, f"{page} lacks {lacking} of --help")


def main():
    programs = {name for name in os.listdir(BIN) if name.startswith("skillwatch")}
    with tempfile.TemporaryDirectory() as work:
        model = tiny_bert(os.path.join(work, "model"), vocabulary(["Know Rust and Python"]))
        staged, prefix = os.path.join(work, "stage/opt/skillwatch"), os.path.join(work, "prefix")
        install("--prefix", "/opt/skillwatch", DESTDIR=os.path.join(work, "stage"))
        install("--prefix", prefix)
        check(files_below(os.path.join(work, "stage")) == {f"opt/skillwatch/{name}" for name in files_below(prefix)}, "DESTDIR holds all")
        check(set(os.listdir(os.path.join(prefix, "bin"))) == programs, f"programs: {os.listdir(os.path.join(prefix, 'bin'))}")
        check(all(os.access(os.path.join(prefix, "bin", name), os.X_OK) for name in programs), "programs are executable")
        modules = os.path.join(prefix, cache_entry("CMAKE_INSTALL_LIBDIR"), "skillwatch")
        built = os.path.join(BUILD, "modules")
        check(os.listdir(modules) == (os.listdir(built) if os.path.isdir(built) else []), f"modules: {os.listdir(modules)}")
        docs = os.path.join(prefix, "share/doc/skillwatch")
        check(files_below(docs) == {"README.md", "LICENSE", "checkpoints/README.md", "docs/compare.png", "docs/page.png", "docs/report.png"}, f"documents: {files_below(docs)}")
        check("# Skillwatch" in open(os.path.join(docs, "README.md")).read(), "README.md is the project's")
        for name in [os.path.join(prefix, "bin", name) for name in programs] + [os.path.join(modules, name) for name in os.listdir(modules)]:
            done = subprocess.run(["readelf", "-d", name], capture_output=True, text=True)
            check("NEEDED" in done.stdout and BUILD not in done.stdout, f"{name} looks into the build folder")
        test_programs(staged, work, model)
        moved = os.path.join(work, "moved here")
        os.rename(prefix, moved)
        test_programs(moved, work, model)
        test_pages(os.path.join(moved, "share/man/man1"), programs)
    check.close()


if __name__ == "__main__":
    main()
