//! The source as the compiler sees it: files, and the paths in each that lead to other files. Tests in it are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The place of a module: its name, behind those of the modules around it.
pub type Place = Vec<String>;

/// The files of a crate, and what each of them uses of the others.
pub struct Source {
    files: BTreeMap<Place, File>,
}

/// One file.
#[derive(Default)]
struct File {
    /// Its path, for people.
    shown: String,
    /// The modules of its own that are files.
    children: BTreeSet<String>,
    /// The names that it hands on, and what they stand for.
    handed_on: BTreeMap<String, Place>,
    /// The paths in it, each from the crate's root.
    paths: BTreeSet<Place>,
}

impl Source {
    /// Reads the files of `src/`.
    pub fn of_crate(root: &Path) -> Self {
        let mut texts = Vec::new();
        gather(root, "src", &mut texts);
        Self::of(texts.iter().map(|(path, text)| (path.as_str(), text.as_str())))
    }

    /// Reads files that are given as their paths below the package and their texts.
    pub fn of<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut read = BTreeMap::new();
        let mut of_tests: Vec<Place> = Vec::new();
        for (path, text) in texts {
            let Some(place) = place_of(path) else { continue };
            let mut tokens = tokens(path, text);
            of_tests.extend(take_tests_out(&mut tokens).into_iter().map(|name| below(&place, &name)));
            read.insert(place, (path.to_owned(), tokens));
        }
        read.retain(|place, _| !of_tests.iter().any(|of_tests| place.starts_with(of_tests)));
        let places: BTreeSet<Place> = read.keys().cloned().collect();
        let files = read.into_iter().map(|(place, (shown, tokens))| {
            let children = places.iter().filter(|other| other.len() == place.len() + 1 && other.starts_with(&place));
            let children = children.map(|child| child[place.len()].clone()).collect();
            let mut file = File { shown, children, ..File::default() };
            file.read(&place, &tokens, true);
            (place, file)
        });
        Self { files: files.collect() }
    }

    /// The modules below the crate's root.
    pub fn modules(&self) -> BTreeSet<&str> {
        self.files.keys().filter_map(|place| place.first()).map(String::as_str).collect()
    }

    /// Every use of one file by another: who, whom, with the names for people.
    pub fn arrows(&self) -> BTreeSet<Arrow<'_>> {
        let mut arrows = BTreeSet::new();
        for (place, file) in &self.files {
            for path in &file.paths {
                let to = self.file_of(path, 0);
                // What the crate's root only declares belongs to nobody.
                if to != *place && !to.is_empty() {
                    let (to, other) = self.files.get_key_value(&to).expect("a path ends in a file");
                    arrows.insert(Arrow { from: place, to, by: &file.shown, of: &other.shown });
                }
            }
        }
        arrows
    }

    /// The file that a path leads to, through names that others hand on.
    fn file_of(&self, path: &[String], depth: usize) -> Place {
        assert!(depth < 16, "names are handed on in a circle: {}", path.join("::"));
        let mut place = Place::new();
        for (index, segment) in path.iter().enumerate() {
            let next = below(&place, segment);
            if self.files.contains_key(&next) {
                place = next;
            } else if let Some(real) = self.files.get(&place).and_then(|file| file.handed_on.get(segment)) {
                let real: Place = real.iter().chain(&path[index + 1..]).cloned().collect();
                return self.file_of(&real, depth + 1);
            } else {
                break;
            }
        }
        place
    }
}

/// One file uses another.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow<'a> {
    pub from: &'a Place,
    pub to: &'a Place,
    /// The path of the file that uses.
    pub by: &'a str,
    /// The path of the file that is used.
    pub of: &'a str,
}

impl File {
    /// Finds the paths among `tokens`, in the module `here`. `whole` says that `here` is the file, and not a module inside it.
    fn read(&mut self, here: &Place, tokens: &[TokenTree], whole: bool) {
        let mut at = 0;
        while at < tokens.len() {
            let word = word(&tokens[at]);
            match word.as_deref() {
                Some("use") => {
                    let end = (at..tokens.len()).find(|end| is(&tokens[*end], ';')).unwrap_or(tokens.len());
                    let public = at.checked_sub(1).is_some_and(|before| {
                        self::word(&tokens[before]).as_deref() == Some("pub") || group(&tokens[before]).is_some()
                    });
                    for (path, name) in leaves(&tokens[at + 1..end]) {
                        let Some(path) = self.absolute(here, &path) else { continue };
                        let of_its_own = whole && path.starts_with(here);
                        if public && whole {
                            self.handed_on.insert(name, path.clone());
                        }
                        if !(public && of_its_own) {
                            self.paths.insert(path);
                        }
                    }
                    at = end;
                }
                Some("mod") => {
                    let inside = tokens.get(at + 2).and_then(group);
                    if let (Some(name), Some((Delimiter::Brace, inside))) = (self::word(&tokens[at + 1]), inside) {
                        self.read(&below(here, &name), &inside, false);
                        at += 2;
                    }
                }
                Some(_) if at < 2 || !(is(&tokens[at - 1], ':') && is(&tokens[at - 2], ':')) => {
                    let mut path = Vec::from_iter(word);
                    while at + 3 < tokens.len() && is(&tokens[at + 1], ':') && is(&tokens[at + 2], ':') {
                        let Some(next) = self::word(&tokens[at + 3]) else { break };
                        path.push(next);
                        at += 3;
                    }
                    if path.len() > 1 {
                        self.paths.extend(self.absolute(here, &path));
                    }
                }
                // Who may see a thing is no use of it.
                _ if at > 0 && self::word(&tokens[at - 1]).as_deref() == Some("pub") => {}
                _ => {
                    if let Some((_, mut inside)) = group(&tokens[at]) {
                        take_tests_out(&mut inside);
                        self.read(here, &inside, whole);
                    }
                }
            }
            at += 1;
        }
    }

    /// A path from the crate's root; none for what is of another crate, or of the language.
    fn absolute(&self, here: &Place, path: &[String]) -> Option<Place> {
        let (first, rest) = path.split_first()?;
        let mut place = match first.as_str() {
            "crate" => Place::new(),
            "self" => here.clone(),
            "super" => here[..here.len().checked_sub(1)?].to_vec(),
            name if self.children.contains(name) => below(here, name),
            _ => return None,
        };
        for segment in rest {
            if segment == "super" {
                place.pop()?;
            } else {
                place.push(segment.clone());
            }
        }
        Some(place)
    }
}

/// The ends of a `use`, each as its path and the name that it has here.
fn leaves(tokens: &[TokenTree]) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    for tree in tokens.split(|token| is(token, ',')) {
        let mut path: Vec<String> = Vec::new();
        let mut name = None;
        let mut at = 0;
        let mut inner = None;
        while at < tree.len() {
            match word(&tree[at]).as_deref() {
                Some("as") => {
                    name = tree.get(at + 1).and_then(word);
                    break;
                }
                Some(segment) => path.push(segment.to_owned()),
                None => {
                    if let Some((Delimiter::Brace, inside)) = group(&tree[at]) {
                        inner = Some(leaves(&inside));
                    } else if is(&tree[at], '*') {
                        path.push("*".to_owned());
                    }
                }
            }
            at += 1;
        }
        match inner {
            Some(inner) => found.extend(inner.into_iter().map(|(rest, name)| {
                let rest = if rest == ["self"] { Vec::new() } else { rest };
                let last = rest.last().or(path.last()).cloned().unwrap_or_default();
                let name = if name == "self" { last } else { name };
                (path.iter().chain(&rest).cloned().collect(), name)
            })),
            None => {
                let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
                found.push((path, name));
            }
        }
    }
    found
}

/// The tokens of a file without what is only there in tests.
pub fn without_tests(path: &str, text: &str) -> Vec<TokenTree> {
    if path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let mut tokens = tokens(path, text);
    take_tests_out(&mut tokens);
    tokens
}

fn tokens(path: &str, text: &str) -> Vec<TokenTree> {
    let tokens = TokenStream::from_str(text).unwrap_or_else(|error| panic!("{path}: {error}"));
    tokens.into_iter().collect()
}

/// Takes out what is only there in tests. Gives the names of modules among it that are files.
fn take_tests_out(tokens: &mut Vec<TokenTree>) -> Vec<String> {
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut rest = std::mem::take(tokens).into_iter().peekable();
    while let Some(token) = rest.next() {
        let of_tests =
            is(&token, '#') && rest.peek().is_some_and(|next| next.to_string().replace(' ', "") == "[cfg(test)]");
        if !of_tests {
            kept.push(token);
            continue;
        }
        let mut item = Vec::new();
        for token in rest.by_ref() {
            let last = is(&token, ';') || matches!(group(&token), Some((Delimiter::Brace, _)));
            item.push(token);
            if last {
                break;
            }
        }
        let words: Vec<String> = item.iter().filter_map(word).collect();
        if let Some(at) = words.iter().position(|word| word == "mod")
            && is(item.last().expect("it has an end"), ';')
        {
            modules.push(words[at + 1].clone());
        }
    }
    *tokens = kept;
    modules
}

fn word(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        _ => None,
    }
}

fn is(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

fn group(token: &TokenTree) -> Option<(Delimiter, Vec<TokenTree>)> {
    match token {
        TokenTree::Group(group) => Some((group.delimiter(), group.stream().into_iter().collect())),
        _ => None,
    }
}

fn below(place: &[String], name: &str) -> Place {
    place.iter().cloned().chain([name.to_owned()]).collect()
}

/// The module whose file this is; none for programs.
fn place_of(path: &str) -> Option<Place> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    if path.starts_with("bin/") {
        return None;
    }
    let mut place: Place = path.split('/').map(str::to_owned).collect();
    if matches!(place.last().map(String::as_str), Some("mod" | "lib")) {
        place.pop();
    }
    Some(place)
}

/// The Rust files of a folder and of those in it, with their texts.
pub fn gather(root: &Path, folder: &str, found: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(root.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    for entry in entries.map(|entry| entry.expect("a folder of the project can be read")) {
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            gather(root, &path, found);
        } else if path.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).unwrap_or_else(|error| panic!("{path}: {error}"));
            found.push((path, text));
        }
    }
}
