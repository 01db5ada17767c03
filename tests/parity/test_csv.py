#!/usr/bin/env python3
"""CSV as our reader sees it against Python's csv module: random fields (quotes, line breaks, delimiters, Unicode) in every quoting style,
plain, .gz and .zst, and a file in the shape of LinkedIn postings made from ../shared/data where that is present."""
import csv, gzip, json, os, random, subprocess, sys, tempfile

TOOL = os.path.join(os.environ.get("SW_TESTS_BIN", "."), "tool-postings")
SHARED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "shared")
csv.field_size_limit(1 << 24)


def ours(path, column, id_column, *more):
    out = subprocess.run([TOOL, "--column", column, "--id-column", id_column, *more, path], capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"{path}: {out.stderr}")
    return [json.loads(line) for line in out.stdout.splitlines()]


def usable(text):
    return text.strip(" \t\n\v\f\r") != "" and "\0" not in text


def compare(path, plain, column, id_column, *more):
    with open(plain, newline="", encoding="utf-8-sig") as f:
        rows = list(csv.DictReader(f, delimiter="\t" if plain.endswith(".tsv") else ","))
    wanted = [(i, row[id_column] or str(i + 1), row[column]) for i, row in enumerate(rows) if usable(row[column])]
    got = [(p["index"], p["id"], p["text"]) for p in ours(path, column, id_column, *more)]
    if got != wanted:
        for a, b in zip(got, wanted):
            if a != b:
                print(f"{path}: {a!r}\n  Python: {b!r}")
                break
        print(f"{path}: {len(got)} rows, Python {len(wanted)}")
        return len(rows), 1
    return len(rows), 0


def random_file(rng, path):
    letters = ["a", "b", "Ñ", "\U0001F600", " ", ",", ";", '"', '""', "'", "\n", "\r\n", "\t", "long text " * 20]
    names = ["key"] + [f"c {i}" for i in range(rng.randint(1, 8))]
    with open(path, "w", newline="", encoding=rng.choice(("utf-8", "utf-8-sig"))) as f:
        writer = csv.writer(f, delimiter="\t" if path.endswith(".tsv") else ",", lineterminator=rng.choice(("\n", "\r\n")),
                            quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC)))
        writer.writerow(names)
        for _ in range(rng.choice((0, 1, 5, 50, 400))):
            writer.writerow([rng.choice(("", "k1", 'k"2'))] + ["".join(rng.choices(letters, k=rng.randint(0, 12))) for _ in names[1:]])
    return rng.choice(names[1:])


def main():
    if not os.path.exists(TOOL):
        print(f"skipped: {TOOL} is not built; set SW_TESTS_BIN")
        sys.exit(77)
    seed = int(os.environ.get("SW_TEST_SEED", "20250607"))
    rng = random.Random(seed)
    files = rows = failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for i in range(150):
            plain = path = os.path.join(folder, f"{i}.{rng.choice(('csv', 'tsv'))}")
            column = random_file(rng, plain)
            if i % 3 == 0:
                path = plain + ".gz"
                with open(plain, "rb") as f, gzip.open(path, "wb") as g:
                    g.write(f.read())
            n, bad = compare(path, plain, column, "key")
            files, rows, failures = files + 1, rows + n, failures + bad
        maker = os.path.join(SHARED, "bench", "make_postings_csv.py")
        if os.path.exists(maker):
            plain = os.path.join(folder, "postings.csv")
            subprocess.run([sys.executable, maker, os.path.join(SHARED, "data"), plain, "5000"], check=True)
            for column in ("description", "title", "company_name", "location"):
                n, bad = compare(plain, plain, column, "job_id")
                files, rows, failures = files + 1, rows + n, failures + bad
            plain = os.path.join(SHARED, "data", "onet", "occupation_data.tsv")
            n, bad = compare(plain, plain, "Description", "O*NET-SOC Code")
            files, rows, failures = files + 1, rows + n, failures + bad
        else:
            print("../shared is missing: generated files only")
    print(f"seed {seed}: {files} files, {rows} rows, {failures} files differ")
    if failures or rows < 5000:
        sys.exit(1)


if __name__ == "__main__":
    main()
