//! The layers of the source tree, and the order of the files in each folder, read from the paths that
//! the source names.
//!
//! Each path to another module or crate is an import, in a `use` or elsewhere. Comments, strings,
//! attributes and items that are compiled for tests only are skipped. Three rules hold:
//!
//! - **Layers.** A layer imports only the layers and crates that its row of [`LAYERS`] allows.
//! - **Parents.** A file does not import what the `mod.rs` of its folder, or of a folder around it,
//!   defines. An import of a re-export counts as an import of the file that defines the item.
//! - **Cycles.** The files and folders of one folder do not import each other in a cycle. A folder
//!   counts as one, with all files in it. A `mod.rs` is not part of a cycle: it may import its
//!   children, and they may not import from it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::Path;

/// What a layer may import. The standard library is allowed everywhere.
struct Layer {
    name: &'static str,
    layers: &'static [&'static str],
    /// The other crates; `None` allows all.
    crates: Option<&'static [&'static str]>,
}

/// The layers that the client, the load tool and the live view may import.
const SHARED: &[&str] = &[
    "wire",
    "handshake",
    "text",
    "clock",
    "descriptors",
    "sockets",
    "units",
    "terminal",
    "client_tls",
];

/// One row for each module of `lib.rs`. The modules of `main.rs` are above them and may import all.
const LAYERS: [Layer; 16] = [
    layer("wire", &[], Some(&[])),
    layer("relay", &["wire"], Some(&["slab"])),
    layer("bus", &["wire"], Some(&[])),
    layer("handshake", &[], None),
    layer(
        "server",
        &["wire", "relay", "bus", "handshake", "text"],
        None,
    ),
    layer("text", &[], None),
    layer("clock", &[], None),
    layer("descriptors", &[], None),
    layer("sockets", &[], None),
    layer("units", &[], None),
    layer("terminal", &[], None),
    layer("client_tls", &[], None),
    layer("client", SHARED, None),
    layer("load", SHARED, None),
    layer("top", SHARED, None),
    layer("judge", &["wire", "descriptors"], None),
];

const fn layer(
    name: &'static str,
    layers: &'static [&'static str],
    crates: Option<&'static [&'static str]>,
) -> Layer {
    Layer {
        name,
        layers,
        crates,
    }
}

/// The name by which the program imports the library.
const LIBRARY: &str = "chatloop";

/// Source text by path, such as `relay/mod.rs`.
type Sources = BTreeMap<String, String>;

/// A path of modules below the crate root. The root itself is empty.
type Module<'a> = Vec<&'a str>;

/// A place in the source that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    /// The file below `src/`.
    file: String,
    line: usize,
    text: String,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            text,
            rule,
        } = self;
        write!(f, "src/{file}:{line}: `{text}`\n    {rule}")
    }
}

// ---- Tokens ----

/// A word, `::`, or one other character.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// The tokens of a source text, without comments, literals and lifetimes.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut rest, mut line) = (Vec::new(), source, 1);
    while !rest.is_empty() {
        let (len, is_token) = lexeme(rest);
        let (text, after) = rest.split_at(len);
        if is_token {
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the first lexeme, and whether it is a token.
fn lexeme(rest: &str) -> (usize, bool) {
    let word_len = |text: &str| text.find(|c| !is_in_word(c)).unwrap_or(text.len());
    let first = rest.chars().next().unwrap();
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (block_comment_len(rest), false);
    }
    if let Some(len) = string_len(rest) {
        return (len, false);
    }
    if let Some(quoted) = rest.strip_prefix('\'') {
        let quoted_len = quoted.chars().next().map_or(0, char::len_utf8);
        let len = if quoted.starts_with('\\') {
            // Not the quote that may be escaped.
            3 + quoted[2..].find('\'').unwrap()
        } else if quoted[quoted_len..].starts_with('\'') {
            quoted_len + 1
        } else {
            word_len(quoted)
        };
        return (1 + len, false);
    }
    if is_in_word(first) {
        return (word_len(rest), true);
    }
    let len = if rest.starts_with("::") {
        2
    } else {
        first.len_utf8()
    };
    (len, !first.is_whitespace())
}

/// The length of a comment that may have others inside.
fn block_comment_len(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a string literal with its prefix, if one comes first.
fn string_len(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c| !"bcr".contains(c)).filter(|&len| len <= 2)?;
    let is_raw = rest[..prefix].contains('r');
    let hashes = rest[prefix..].find(|c| c != '#').filter(|_| is_raw);
    let start = prefix + hashes.unwrap_or(0) + 1;
    if rest.as_bytes().get(start - 1) != Some(&b'"') {
        return None;
    }
    if let Some(hashes) = hashes {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(start + rest[start..].find(&end)? + end.len());
    }
    let mut is_escaped = false;
    let end = rest[start..].find(|c| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    Some(start + end? + 1)
}

/// The tokens without attributes, and without the items that are compiled for tests only.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let is = |offset: usize, text| tokens.get(at + offset).is_some_and(|one| one.text == text);
        let open = at + 1 + usize::from(is(1, "!"));
        if !is(0, "#") || tokens.get(open).is_none_or(|one| one.text != "[") {
            kept.push(tokens[at]);
            at += 1;
            continue;
        }
        let end = group_end(tokens, open);
        let attribute: String = tokens[open..end].iter().map(|one| one.text).collect();
        let is_test = attribute == "[cfg(test)]" || attribute.starts_with("[cfg(all(test,");
        at = if is_test { item_end(tokens, end) } else { end };
    }
    kept
}

/// The position after the group that opens at `open`.
fn group_end(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// The position after the item, field or variant that begins at `at`.
fn item_end(tokens: &[Token<'_>], mut at: usize) -> usize {
    let mut angles = 0;
    while let Some(token) = tokens.get(at) {
        match token.text {
            "{" => return group_end(tokens, at),
            ";" => return at + 1,
            "," if angles == 0 => return at + 1,
            "}" => return at,
            "(" | "[" => {
                at = group_end(tokens, at);
                continue;
            }
            "<" => angles += 1,
            // Not that of `->`.
            ">" if tokens[at - 1].text != "-" => angles -= 1,
            _ => {}
        }
        at += 1;
    }
    at
}

// ---- Files ----

/// A source file, and what it names.
#[derive(Debug)]
struct File<'a> {
    path: &'a str,
    source: &'a str,
    module: Module<'a>,
    imports: Vec<Import<'a>>,
    /// The items at its top level.
    defines: BTreeSet<&'a str>,
}

/// A path that a file names.
#[derive(Clone, Debug, PartialEq)]
struct Import<'a> {
    path: Vec<&'a str>,
    /// The name that it has from then on. It is `*` for a glob, and none outside of a `use`.
    name: Option<&'a str>,
    line: usize,
}

/// What a path names.
#[derive(Debug, PartialEq)]
enum Target<'a> {
    /// A module or an item of this project.
    Ours(Vec<&'a str>),
    /// Another crate.
    Crate(&'a str),
    /// The standard library, or a name that the file itself has.
    Neither,
}

/// Words that begin an item, whose name is the next word.
const ITEMS: [&str; 9] = [
    "const",
    "enum",
    "fn",
    "macro_rules",
    "mod",
    "static",
    "struct",
    "trait",
    "type",
];

/// Types with a name like a module's.
const PRIMITIVES: [&str; 17] = [
    "bool", "char", "f32", "f64", "i128", "i16", "i32", "i64", "i8", "isize", "str", "u128", "u16",
    "u32", "u64", "u8", "usize",
];

impl<'a> File<'a> {
    fn parse(path: &'a str, source: &'a str) -> Self {
        let stem = path.strip_suffix(".rs").unwrap();
        let mut module: Module<'a> = stem.split('/').collect();
        module.pop_if(|last| ["mod", "lib", "main"].contains(last));
        let mut file = Self {
            path,
            source,
            module,
            imports: Vec::new(),
            defines: BTreeSet::new(),
        };
        file.scan(&without_tests(&tokens(source)));
        file
    }

    fn scan(&mut self, tokens: &[Token<'a>]) {
        let text = |at: usize| tokens.get(at).map_or("", |one| one.text);
        let (mut at, mut depth) = (0, 0);
        while at < tokens.len() {
            let line = tokens[at].line;
            match text(at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                // Not the `use<'a>` of a return type.
                "use" if text(at + 1) != "<" => {
                    at += 1;
                    self.read_use_tree(tokens, &mut at, &[]);
                    continue;
                }
                // Not the path of a visibility.
                "in" if text(at + 2) == "::" && at > 1 && text(at - 2) == "pub" => {
                    while text(at) != ")" {
                        at += 1;
                    }
                }
                word if ITEMS.contains(&word) && depth == 0 => {
                    let name = at + 1 + usize::from(text(at + 1) == "!");
                    self.defines.insert(text(name));
                }
                word if text(at + 1) == "::"
                    && word.starts_with(|c: char| c.is_lowercase())
                    // Not the inner part of `Type::word::…`.
                    && !(at > 1 && text(at - 1) == "::" && text(at - 2).ends_with(is_in_word)) =>
                {
                    let mut path = vec![word];
                    while text(at + 1) == "::" && text(at + 2).starts_with(is_in_word) {
                        at += 2;
                        path.push(text(at));
                    }
                    // A single word is a function with type arguments.
                    if path.len() > 1 {
                        let name = None;
                        self.imports.push(Import { path, name, line });
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Reads a tree such as `a::{b, c as d, e::*}`.
    fn read_use_tree(&mut self, tokens: &[Token<'a>], at: &mut usize, prefix: &[&'a str]) {
        let (mut path, mut name) = (prefix.to_vec(), None);
        let (start, line) = (*at, tokens[*at].line);
        while let Some(token) = tokens.get(*at) {
            match token.text {
                "," | "}" | ";" => break,
                "::" => {}
                "as" => {
                    *at += 1;
                    name = Some(tokens[*at].text);
                }
                "{" => {
                    while tokens[*at].text != "}" {
                        *at += 1;
                        self.read_use_tree(tokens, at, &path);
                    }
                    *at += 1;
                    return;
                }
                word => path.push(word),
            }
            *at += 1;
        }
        if path.last() == Some(&"*") {
            path.pop();
            name = Some("*");
        } else if path.len() > 1 {
            path.pop_if(|last| *last == "self");
        }
        // There is nothing after the last comma of a group.
        if *at > start {
            let name = name.or_else(|| path.last().copied());
            self.imports.push(Import { path, name, line });
        }
    }
}

// ---- Rules ----

/// All files of a source tree.
struct Tree<'a> {
    files: Vec<File<'a>>,
}

/// The imports between the members of a folder: by folder, importer and imported, a place of one.
type Edges<'a> = BTreeMap<(Module<'a>, &'a str), BTreeMap<&'a str, (&'a File<'a>, usize)>>;

impl<'a> Tree<'a> {
    fn parse(sources: &'a Sources) -> Self {
        let files = sources.iter();
        Self {
            files: files.map(|(path, text)| File::parse(path, text)).collect(),
        }
    }

    /// The files of a module: one, but two for the crate roots.
    fn files_of(&self, module: &[&str]) -> impl Iterator<Item = &File<'a>> {
        self.files.iter().filter(move |file| file.module == module)
    }

    fn has(&self, module: &[&str]) -> bool {
        self.files_of(module).next().is_some()
    }

    /// Resolves the first word of a path that a file names.
    fn target(&self, file: &File<'a>, path: &[&'a str]) -> Target<'a> {
        let supers = path.iter().take_while(|&&word| word == "super").count();
        let first = path[0];
        let is_known = |name| {
            let mut imports = file.imports.iter();
            let has_name = |one: &Import<'_>| one.name == Some(name) && one.path[0] != name;
            file.defines.contains(name) || imports.any(has_name)
        };
        let child = [&file.module[..], &[first]].concat();
        match first {
            "crate" | LIBRARY => Target::Ours(path[1..].to_vec()),
            "self" => Target::Ours([&file.module, &path[1..]].concat()),
            "super" => {
                let parent = &file.module[..file.module.len().saturating_sub(supers)];
                Target::Ours([parent, &path[supers..]].concat())
            }
            "std" | "core" | "alloc" => Target::Neither,
            _ if self.has(&child) => Target::Ours([&file.module, path].concat()),
            _ if PRIMITIVES.contains(&first) || is_known(first) => Target::Neither,
            _ if first.starts_with(char::is_uppercase) => Target::Neither,
            _ => Target::Crate(first),
        }
    }

    /// The module that defines the item of this path; `fuel` bounds the number of re-exports followed.
    fn definer(&self, path: &[&'a str], fuel: usize) -> Module<'a> {
        let modules = (1..=path.len()).take_while(|&len| self.has(&path[..len]));
        let (module, rest) = path.split_at(modules.last().unwrap_or(0));
        let Some((&item, inner)) = rest.split_first().filter(|_| fuel > 0) else {
            return module.to_vec();
        };
        let defines = |module: &[&str]| self.files_of(module).any(|one| one.defines.contains(item));
        if defines(module) {
            return module.to_vec();
        }
        for file in self.files_of(module) {
            for import in &file.imports {
                let is_glob = import.name == Some("*");
                if !is_glob && import.name != Some(item) {
                    continue;
                }
                let Target::Ours(mut target) = self.target(file, &import.path) else {
                    continue;
                };
                target.extend(is_glob.then_some(item));
                target.extend(inner);
                let found = self.definer(&target, fuel - 1);
                if !is_glob || defines(&found) {
                    return found;
                }
            }
        }
        module.to_vec()
    }

    /// The files of a module, as a message shows them.
    fn name(&self, module: &[&str]) -> String {
        let files = self.files_of(module);
        let names: Vec<_> = files.map(|file| format!("src/{}", file.path)).collect();
        names.join(" or ")
    }

    fn violations(&self) -> Vec<Violation> {
        let (mut violations, mut edges) = (Vec::new(), Edges::new());
        for file in &self.files {
            let top = file.module.first().copied().unwrap_or_default();
            let layer = LAYERS.iter().find(|layer| layer.name == top);
            let is_program = |one: &File<'_>| one.path == "main.rs" && one.defines.contains(top);
            if !top.is_empty() && layer.is_none() && !self.files.iter().any(is_program) {
                let rule = "this module has no layer; give it a row in LAYERS".to_owned();
                violations.push(file.violation(1, rule));
            }
            for import in &file.imports {
                let broken = match self.target(file, &import.path) {
                    Target::Neither => None,
                    Target::Crate(name) => layer.and_then(|layer| layer.refuses_crate(name)),
                    Target::Ours(path) => layer
                        .filter(|_| path.first().is_some_and(|one| self.has(&[one])))
                        .and_then(|layer| layer.refuses_layer(path[0]))
                        .or_else(|| self.add_edge(file, import, &path, &mut edges)),
                };
                violations.extend(broken.map(|rule| file.violation(import.line, rule)));
            }
        }
        violations.extend(cycles(&edges));
        violations.sort();
        violations.dedup();
        violations
    }

    /// Adds the edge of an import of this project's own item. Returns the broken rule, if a parent
    /// defines the item.
    fn add_edge<'b>(
        &'b self,
        file: &'b File<'a>,
        import: &Import<'a>,
        path: &[&'a str],
        edges: &mut Edges<'b>,
    ) -> Option<String> {
        let (from, to) = (&file.module, self.definer(path, 16));
        let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
        if common == from.len() {
            // Its own item, or a child's.
            return None;
        }
        if common == to.len() {
            let (path, parent) = (import.path.join("::"), self.name(&to));
            return Some(format!(
                "`{path}` is defined in {parent}, a parent of this file; import only what siblings \
                 and children define: move the item into a file of its own"
            ));
        }
        let folder = (from[..common].to_vec(), from[common]);
        let imported = edges.entry(folder).or_default();
        imported.entry(to[common]).or_insert((file, import.line));
        None
    }
}

/// The edges that are part of a cycle.
fn cycles(edges: &Edges<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for ((folder, from), imported) in edges {
        for (to, &(file, line)) in imported {
            if let Some(back) = shortest_path(edges, folder, to, from) {
                let cycle = [&[*from], &back[..]].concat().join(" -> ");
                let folder = [&["src"], &folder[..]].concat().join("/");
                let rule = format!("an import cycle in {folder}: {cycle}");
                violations.push(file.violation(line, rule));
            }
        }
    }
    violations
}

/// The shortest path along the edges of a folder, with both ends.
fn shortest_path<'a>(
    edges: &Edges<'a>,
    folder: &Module<'a>,
    from: &'a str,
    to: &str,
) -> Option<Vec<&'a str>> {
    let (mut paths, mut next, mut seen) = (vec![vec![from]], 0, BTreeSet::from([from]));
    while let Some(known) = paths.get(next).cloned() {
        let last = *known.last()?;
        if last == to {
            return Some(known);
        }
        let imported = edges.get(&(folder.clone(), last));
        for &one in imported.into_iter().flat_map(BTreeMap::keys) {
            if seen.insert(one) {
                paths.push([&known[..], &[one]].concat());
            }
        }
        next += 1;
    }
    None
}

impl Layer {
    fn refuses_crate(&self, name: &str) -> Option<String> {
        let allowed = self.crates.filter(|allowed| !allowed.contains(&name))?;
        Some(format!(
            "the layer {} must not import the crate {name}; it may import {}",
            self.name,
            listed(allowed)
        ))
    }

    fn refuses_layer(&self, name: &str) -> Option<String> {
        (name != self.name && !self.layers.contains(&name)).then(|| {
            let allowed = listed(self.layers);
            format!(
                "the layer {} must not import {name}; it may import {allowed}",
                self.name
            )
        })
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

impl File<'_> {
    fn violation(&self, line: usize, rule: String) -> Violation {
        let text = self.source.lines().nth(line - 1).unwrap_or_default();
        Violation {
            file: self.path.to_owned(),
            line,
            text: text.trim().to_owned(),
            rule,
        }
    }
}

/// All Rust files below a folder.
fn read_sources(folder: &Path, prefix: &str, sources: &mut Sources) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = prefix.to_owned() + entry.file_name().to_str().unwrap();
        if entry.file_type().unwrap().is_dir() {
            read_sources(&entry.path(), &(name + "/"), sources);
        } else if entry.path().extension() == Some(OsStr::new("rs")) {
            sources.insert(name, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

#[test]
fn source_tree_keeps_the_rules_of_its_layers_and_folders() {
    let mut sources = Sources::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read_sources(&root, "", &mut sources);
    for layer in &LAYERS {
        let is_of_it = |path: &String| path.split(['/', '.']).next() == Some(layer.name);
        assert!(sources.keys().any(is_of_it), "no layer {}", layer.name);
    }
    let violations = Tree::parse(&sources).violations();
    let shown: Vec<_> = violations.iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "\n{}\n", shown.join("\n"));
}

// ---- Tests of the checker ----

/// The violations in a source tree of these files, and of a program with the module `join`.
#[track_caller]
fn check(files: &[(&str, &str)]) -> Vec<String> {
    let mut sources = Sources::from([("main.rs".to_owned(), "mod join;".to_owned())]);
    // A layer is a layer only if it is there.
    for layer in &LAYERS {
        sources.insert(format!("{}/mod.rs", layer.name), String::new());
    }
    for (path, text) in files {
        sources.insert((*path).to_owned(), (*text).to_owned());
    }
    let violations = Tree::parse(&sources).violations();
    violations.iter().map(ToString::to_string).collect()
}

/// Checks that there is one violation, which begins and ends so.
#[track_caller]
fn assert_one(files: &[(&str, &str)], begins: &str, ends: &str) {
    let violations = check(files);
    let [violation] = &violations[..] else {
        panic!("not one violation, but {violations:#?}");
    };
    assert!(violation.starts_with(begins), "{violation}");
    assert!(violation.ends_with(ends), "{violation}");
}

#[test]
fn import_of_a_layer_that_the_table_does_not_allow_is_a_violation() {
    for layer in &LAYERS {
        let file = format!("{}/file.rs", layer.name);
        for other in LAYERS.iter().filter(|other| other.name != layer.name) {
            let import = format!("use crate::{}::Thing;", other.name);
            let files = [(&file[..], &import[..])];
            if layer.layers.contains(&other.name) {
                assert_eq!(check(&files), [""; 0]);
            } else {
                let begins = format!("src/{file}:1: `{import}`\n");
                let rule = format!(
                    "    the layer {} must not import {}",
                    layer.name, other.name
                );
                assert_one(&files, &(begins + &rule), &listed(layer.layers));
            }
        }
    }
}

#[test]
fn no_layer_imports_a_layer_that_imports_it() {
    let row = |name| LAYERS.iter().find(|layer| layer.name == name).unwrap();
    for layer in &LAYERS {
        let mut below = layer.layers.to_vec();
        while let Some(name) = below.pop() {
            assert_ne!(name, layer.name);
            below.extend(row(name).layers);
        }
    }
}

#[test]
fn import_of_the_program_by_a_layer_is_a_violation() {
    let files = [("join.rs", ""), ("load/mod.rs", "use crate::join::Look;")];
    let rule = "the layer load must not import join; it may import wire, handshake, text, clock, descriptors, sockets, units, terminal, client_tls";
    assert_one(&files, "src/load/mod.rs:1: ", rule);
    let program = "use chatloop::{client::Client, load, server::Server, wire};\nuse mio::Poll;";
    assert_eq!(check(&[("join.rs", program)]), [""; 0]);
}

#[test]
fn crate_that_the_table_does_not_allow_is_a_violation_in_relay() {
    for name in ["clap", "humantime", "log", "mio", "unicode_width"] {
        let import = format!("use std::fmt;\nuse {name}::{{One, Other as Another}};");
        let begins = format!("src/relay/file.rs:2: `use {name}::");
        let ends = format!("the layer relay must not import the crate {name}; it may import slab");
        assert_one(&[("relay/file.rs", &import)], &begins, &ends);
        assert_eq!(check(&[("server/file.rs", &import)]), [""; 0]);
    }
    let allowed = "use slab::Slab;\nuse std::{fmt, mem};\nuse core::time::Duration;\n\
                   use alloc::rc::Rc;\nfn f() { mem::take(u64::MAX); fmt::Error; Slab::new(); }";
    assert_eq!(check(&[("relay/file.rs", allowed)]), [""; 0]);
}

#[test]
fn path_outside_of_a_use_is_an_import_too() {
    let crate_path = "fn f() {\n    log::info!(\"{}\", 1);\n}";
    let begins = "src/relay/file.rs:2: `log::info!(\"{}\", 1);`\n";
    assert_one(&[("relay/file.rs", crate_path)], begins, "may import slab");
    let upwards = "struct File {\n    server: Box<crate::server::Server>,\n}";
    assert_one(&[("wire/file.rs", upwards)], "src/wire/file.rs:2: ", "none");
    let absolute = "fn f() -> ::mio::Token { Type::log::Item }";
    assert_one(
        &[("relay/file.rs", absolute)],
        "src/relay/file.rs:1: ",
        "may import slab",
    );
    let parent = [
        ("wire/mod.rs", "mod file;\nfn helper() {}"),
        ("wire/file.rs", "fn f() { super::helper(); }"),
    ];
    assert_one(&parent, "src/wire/file.rs:1: ", "a file of its own");
}

#[test]
fn module_without_a_row_is_a_violation() {
    let rule = "this module has no layer; give it a row in LAYERS";
    assert_one(&[("attic/mod.rs", "\n")], "src/attic/mod.rs:1: ", rule);
}

#[test]
fn import_of_what_a_parent_defines_is_a_violation() {
    let item = "pub struct Relay;\nconst ROOM: usize = 1;\nmod pace;\nuse pace::Pace;";
    for (import, path) in [
        ("use super::Relay;", "super::Relay"),
        ("use super::{ROOM as R};", "super::ROOM"),
        ("use crate::relay::Relay;", "crate::relay::Relay"),
        ("use super::*;", "super"),
        (
            "use super::super::relay::Relay;",
            "super::super::relay::Relay",
        ),
    ] {
        let files = [("relay/mod.rs", item), ("relay/pace.rs", import)];
        let begins = format!(
            "src/relay/pace.rs:1: `{import}`\n    `{path}` is defined in src/relay/mod.rs, a parent"
        );
        assert_one(&files, &begins, "move the item into a file of its own");
    }
    let files = [
        ("relay/mod.rs", "mod flow; pub struct Relay;"),
        ("relay/flow/mod.rs", "mod pace;"),
        ("relay/flow/pace.rs", "use super::super::Relay;"),
    ];
    assert_one(&files, "src/relay/flow/pace.rs:1: ", "a file of its own");
}

#[test]
fn import_of_what_a_parent_reexports_counts_as_one_of_the_defining_file() {
    let parent = "mod inner;\nmod limits;\nmod pace;\npub use limits::{Limits, Rate as Speed};\n\
                  pub use inner::*;\nuse pace::Pace;\nstruct Relay(Pace);";
    let inner = [
        ("relay/inner/mod.rs", "mod deep; pub use deep::Deep;"),
        ("relay/inner/deep.rs", "pub struct Deep;"),
    ];
    let import = "use super::{Deep, Limits, Speed};\npub struct Pace;";
    let files = [("relay/mod.rs", parent), ("relay/pace.rs", import)];
    let limits = ("relay/limits.rs", "pub struct Limits;\npub struct Rate;");
    assert_eq!(check(&[&files[..], &inner, &[limits]].concat()), [""; 0]);

    let cycle = (
        "relay/limits.rs",
        "use super::Pace;\npub struct Limits;\nstruct Rate;",
    );
    let violations = check(&[&files[..], &inner, &[cycle]].concat());
    let [one, other] = &violations[..] else {
        panic!("{violations:#?}");
    };
    assert!(
        one.starts_with("src/relay/limits.rs:1: `use super::Pace;`\n"),
        "{one}"
    );
    assert!(
        one.ends_with("in src/relay: limits -> pace -> limits"),
        "{one}"
    );
    assert!(other.starts_with("src/relay/pace.rs:1: "), "{other}");
    assert!(
        other.ends_with("in src/relay: pace -> limits -> pace"),
        "{other}"
    );
}

#[test]
fn cycle_of_three_files_is_a_violation_of_each() {
    let mut files = vec![
        (
            "client/mod.rs",
            "mod a; mod b; mod c; mod d; use {a::A, d::D};",
        ),
        ("client/a.rs", "use super::b::B;"),
        ("client/b.rs", "use super::c::{self, C};"),
        ("client/c.rs", "use crate::client::a;"),
        ("client/d.rs", "use super::a::A;"),
    ];
    let rules: Vec<_> = check(&files)
        .iter()
        .map(|one| one.rsplit(": ").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        rules,
        ["a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c"]
    );
    files[3].1 = "";
    assert_eq!(check(&files), [""; 0]);
}

#[test]
fn cycle_of_two_folders_is_a_violation_even_if_no_two_files_import_each_other() {
    let files = [
        ("relay/mod.rs", "mod channel; mod flow;"),
        (
            "relay/channel/mod.rs",
            "mod cursor; mod log; pub use log::Log;",
        ),
        ("relay/channel/cursor.rs", "use super::super::flow::Pace;"),
        ("relay/channel/log.rs", "pub struct Log;"),
        (
            "relay/flow/mod.rs",
            "mod memory; mod pace; pub use pace::Pace;",
        ),
        ("relay/flow/memory.rs", "use crate::relay::channel::Log;"),
        ("relay/flow/pace.rs", "pub struct Pace;"),
    ];
    let violations = check(&files);
    assert_eq!(violations.len(), 2, "{violations:#?}");
    assert!(violations[0].ends_with("channel -> flow -> channel"));
    assert!(violations[1].ends_with("flow -> channel -> flow"));
    let one_way = [&files[..5], &files[6..]].concat();
    assert_eq!(check(&one_way), [""; 0]);
}

#[test]
fn tests_comments_strings_and_attributes_are_not_imports() {
    let text = r##"
//! [`Server`](crate::server::Server)
/* use crate::server::A; /* nested */ use log::B; */
#[doc = "crate::server::C"]
#[allow(clippy::all)]
pub(in super::super) const NAME: &str = "use crate::server::D; \" log::x";
const RAW: &[u8] = br#"crate::server::E " log::y"#;
fn quote<'a>(c: char) -> impl Iterator<Item = &'a str> + use<'a> {
    matches!(c, '"' | '\'' | '\u{1f}');
    [0].iter().collect::<Vec<_>>()
}
struct State {
    #[cfg(test)]
    log: BTreeMap<log::Level, log::Log>,
    is_open: bool,
}
#[cfg(test)]
use crate::server::F;
#[cfg(test)]
fn helper<A, B>(list: [u8; 3]) -> Vec<A> { log::info!() }
#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::server::G;
}
"##;
    assert_eq!(check(&[("relay/file.rs", text)]), [""; 0]);
    // What follows is read again.
    let more = text.to_owned() + "use log::Level;";
    assert_one(
        &[("relay/file.rs", &more)],
        "src/relay/file.rs:26: ",
        "slab",
    );
}

#[test]
fn use_tree_is_read_with_its_groups_names_and_lines() {
    let source = "pub use a::b;\nuse ::c::{self, d as e,\n    f::{g::*, h as _},\n};\nuse i;";
    let file = File::parse("wire/file.rs", source);
    let imports = file.imports.iter();
    let found: Vec<_> = imports
        .map(|one| (one.path.join("::"), one.name.unwrap(), one.line))
        .collect();
    let expected = [
        ("a::b", "b", 1),
        ("c", "c", 2),
        ("c::d", "e", 2),
        ("c::f::g", "*", 3),
        ("c::f::h", "_", 3),
        ("i", "i", 5),
    ];
    let expected = expected.map(|(path, name, line)| (path.to_owned(), name, line));
    assert_eq!(found, expected);
    assert_eq!(file.module, ["wire", "file"]);
}
