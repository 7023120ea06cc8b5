//! The documents say what is so: help texts, flags, exit codes, links, file names, terms.

#![cfg(feature = "cli")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use chatloop::wire::Dialect;

use crate::common::process::{chatloop, run};

const COMMANDS: [&str; 7] = ["serve", "join", "load", "top", "admin", "judge", "cert"];

const SCENARIOS: [&str; 6] = ["idle", "fanout", "chat", "latency", "storm", "soak"];

const MAX_README_LINES: usize = 200;

/// Folders whose files the documents name from the project's root.
const NAMED_FROM_ROOT: [&str; 4] = ["src/", "tests/", "benches/", "docs/"];

/// A document of the project.
struct Document {
    /// Its path from the project's root.
    path: PathBuf,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every document: those at the root, those of the examples, the exercises, the fuzzer and the tests, and all in `docs/`.
fn documents() -> Vec<Document> {
    let outside = [
        "README.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "examples/README.md",
        "exercises/README.md",
        "fuzz/README.md",
        "tests/README.md",
    ];
    let mut paths: Vec<_> = outside.map(PathBuf::from).to_vec();
    for folder in ["docs", "docs/guide"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    let document = |path: PathBuf| Document {
        text: read(&path),
        path,
    };
    paths.into_iter().map(document).collect()
}

fn document(path: &str) -> Document {
    Document {
        path: path.into(),
        text: read(path),
    }
}

fn help(args: &[&str]) -> String {
    let (code, help, _) = run(&mut chatloop(args));
    assert_eq!(code, 0, "{args:?}");
    help
}

impl Document {
    /// Its lines outside of fenced code.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut is_code = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        })
    }

    /// The code spans of its prose.
    fn code_spans(&self) -> impl Iterator<Item = &str> {
        self.prose()
            .flat_map(|line| line.split('`').skip(1).step_by(2))
    }

    /// The targets of its links and images.
    fn links(&self) -> impl Iterator<Item = &str> {
        let targets = |line| {
            let ends = [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"')];
            ends.into_iter().flat_map(move |(start, end)| {
                let rests = str::split(line, start).skip(1);
                rests.filter_map(move |rest| rest.split(end).next())
            })
        };
        self.prose().flat_map(targets)
    }

    /// The anchors of its headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        for heading in self.prose().filter(|line| line.starts_with('#')) {
            let title = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
            assert!(
                anchors.insert(anchor),
                "{}: two headings `{title}`",
                self.path.display()
            );
        }
        anchors
    }
}

/// The file that a link of `from` leads to, from the project's root, and the anchor in it.
fn resolve<'a>(from: &Path, link: &'a str) -> (PathBuf, Option<&'a str>) {
    let (file, anchor) = match link.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (link, None),
    };
    if file.is_empty() {
        return (from.to_owned(), anchor);
    }
    let mut path = PathBuf::new();
    for part in from.parent().unwrap().join(file).components() {
        if part.as_os_str() == ".." {
            assert!(path.pop(), "{link} leaves the project");
        } else {
            path.push(part);
        }
    }
    (path, anchor)
}

#[test]
fn help_of_each_command_stands_in_one_document_as_it_is() {
    let documents = documents();
    for command in COMMANDS {
        let help = help(&[command, "-h"]);
        let shown = documents
            .iter()
            .filter(|one| one.text.contains(help.trim_end()));
        assert_eq!(shown.count(), 1, "put this into one page of docs/:\n{help}");
    }
}

#[test]
fn exit_codes_of_each_help_stand_in_the_table_of_operations() {
    let operations = read("docs/operations.md");
    for command in COMMANDS {
        let help = help(&[command, "--help"]);
        let codes = help
            .split("Exit codes:\n")
            .nth(1)
            .expect("a list of exit codes");
        for line in codes.lines().take_while(|line| line.starts_with(' ')) {
            let (code, meaning) = line
                .trim()
                .split_once("  ")
                .expect("a code and what it means");
            let row = operations
                .lines()
                .find(|row| row.starts_with(&format!("| {code} | ")));
            let row = row.unwrap_or_else(|| panic!("exit code {code}"));
            assert!(row.contains(meaning), "{meaning}, not {row}");
        }
    }
}

#[test]
fn flags_in_documents_exist() {
    let mut helps = COMMANDS.map(|command| help(&[command, "--help"])).to_vec();
    helps.extend(["kick", "ban", "say"].map(|act| help(&["admin", act, "--help"])));
    helps.extend(SCENARIOS.map(|scenario| help(&["load", scenario, "--help"])));
    let is_in_flag = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let flags: BTreeSet<_> = helps
        .iter()
        .flat_map(|help| help.split(|c| !is_in_flag(c)))
        .filter(|word| word.starts_with("--"))
        .collect();
    let mut count = 0;
    for document in documents() {
        let spans = document.code_spans();
        let starts = spans.filter_map(|span| span.split(|c| !is_in_flag(c)).next());
        // Not the `--` that stands before another program's arguments.
        for flag in starts.filter(|start| start.starts_with("--") && start.len() > 2) {
            let path = document.path.display();
            assert!(flags.contains(flag), "{path}: {flag} is no flag");
            count += 1;
        }
    }
    assert!(count > 50, "only {count}");
}

#[test]
fn each_dialect_has_a_row_in_the_table_of_protocols() {
    let protocols = read("docs/protocols.md");
    for dialect in Dialect::ALL {
        let row = format!("\n| `{dialect}` | ");
        assert!(protocols.contains(&row), "{dialect}");
    }
}

#[test]
fn readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(
        lines <= MAX_README_LINES,
        "{lines} lines: move some of them to docs/"
    );
}

#[test]
fn readme_leads_to_every_page() {
    let readme = document("README.md");
    let linked: BTreeSet<_> = readme
        .links()
        .map(|link| resolve(&readme.path, link).0)
        .collect();
    for page in documents() {
        // The chapters of the guide are linked from its own README.md.
        let is_page = page.path.parent() == Some(Path::new("docs"));
        assert!(
            !is_page || linked.contains(&page.path),
            "{}",
            page.path.display()
        );
    }
}

#[test]
fn links_of_documents_resolve() {
    let mut count = 0;
    for from in documents() {
        let links = from.links().filter(|link| !link.starts_with("https://"));
        for link in links {
            let (path, anchor) = resolve(&from.path, link);
            let here = from.path.display();
            assert!(root().join(&path).exists(), "{here}: {link}");
            if let Some(anchor) = anchor {
                let text = read(&path);
                let anchors = Document { path, text }.anchors();
                assert!(
                    anchors.contains(anchor),
                    "{here}: {link} is none of {anchors:?}"
                );
            }
            count += 1;
        }
    }
    assert!(count > 100, "only {count}");
}

#[test]
fn files_that_documents_name_exist() {
    let mut count = 0;
    for document in documents() {
        for span in document.code_spans() {
            if NAMED_FROM_ROOT
                .iter()
                .any(|folder| span.starts_with(folder))
            {
                let path = document.path.display();
                assert!(root().join(span).exists(), "{path}: {span} does not exist");
                count += 1;
            }
        }
    }
    assert!(count > 30, "only {count}");
}

#[test]
fn code_in_the_guide_is_that_of_the_file_that_it_names() {
    let mut count = 0;
    for chapter in documents() {
        if !chapter.path.starts_with("docs/guide") {
            continue;
        }
        let mut parts = chapter.text.split("```rust\n");
        let mut before = parts.next().unwrap();
        for part in parts {
            let (code, after) = part.split_once("```").unwrap();
            let name = before.trim_end().lines().last().unwrap();
            let name = name.split('`').nth(1).unwrap();
            let here = chapter.path.display();
            let has_code = has_lines(&read(name), code);
            assert!(has_code, "{here}: not in {name} any more:\n{code}");
            before = after;
            count += 1;
        }
    }
    assert!(count > 10, "only {count}");
}

/// Whether a text has these lines one after the other, whatever their indentation.
fn has_lines(text: &str, lines: &str) -> bool {
    let trim = |text: &str| -> Vec<_> { text.lines().map(|line| line.trim().to_owned()).collect() };
    let (text, lines) = (trim(text), trim(lines));
    text.windows(lines.len()).any(|window| window == lines)
}

#[test]
fn lifecycle_of_the_architecture_page_is_that_of_the_source() {
    let source = read("src/relay/lifecycle.rs");
    let comment: Vec<_> = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let of_table = |line: &&str| line.starts_with('|');
    let diagram = comment.split(|line| line.starts_with("```")).nth(1);
    let table = comment.iter().copied().filter(of_table).collect::<Vec<_>>();
    let page = read("docs/architecture.md");
    for part in [diagram.unwrap(), &table] {
        let part = part.join("\n");
        assert!(part.lines().count() > 5, "{part}");
        assert!(
            page.contains(&part),
            "put this into docs/architecture.md:\n{part}"
        );
    }
}

/// The Rust files below `folder`.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// Whether the words of `phrase` stand in a text, and no longer ones.
fn has_words(text: &str, phrase: &str) -> bool {
    let is_in_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(phrase).any(|(at, _)| {
        let is_start = !text[..at].ends_with(is_in_word);
        is_start && !text[at + phrase.len()..].starts_with(is_in_word)
    })
}

#[test]
fn terms_of_the_glossary_are_in_the_code() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let kinds = ["struct", "enum", "trait", "const"];
    let defines = |file: &str, name: &str| {
        let is_defined = |kind| has_words(file, &format!("{kind} {name}"));
        kinds.into_iter().any(is_defined)
    };
    let glossary = document("docs/glossary.md");
    let mut count = 0;
    for row in glossary.prose().filter(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let Some(names) = cells.get(2) else { continue };
        for name in names.split('`').skip(1).step_by(2) {
            let (owner, item) = match name.split_once("::") {
                Some((owner, item)) => (owner, Some(item)),
                None => (name, None),
            };
            let is_there = files
                .iter()
                .any(|file| defines(file, owner) && item.is_none_or(|item| has_words(file, item)));
            assert!(is_there, "{name} is not in the code: {row}");
            count += 1;
        }
    }
    assert!(count > 40, "only {count}");
}

#[test]
fn drawing_in_light_and_dark_differs_only_in_colours() {
    let drawing = |theme| {
        let svg = read(format!("docs/images/turn-{theme}.svg"));
        let (before, rest) = svg.split_once("<style>").unwrap();
        let (style, after) = rest.split_once("</style>").unwrap();
        (format!("{before}{after}"), style.to_owned())
    };
    let ((light, light_style), (dark, dark_style)) = (drawing("light"), drawing("dark"));
    assert_eq!(light, dark);
    assert_ne!(light_style, dark_style);
}
