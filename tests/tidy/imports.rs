//! Which file of a crate imports which, as far as `use` says.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, sources, without_tests};

/// A module by its path in the crate, and the file's name.
type Module = Vec<String>;

/// Pairs of files of the crate in `folder` that import each other, a module and one inside it
/// aside.
pub fn cycles(folder: &str) -> Vec<String> {
    let files: BTreeMap<Module, (String, String)> = sources(folder)
        .into_iter()
        .filter(|(path, _)| path.ends_with(".rs"))
        .map(|(path, text)| (module(folder, &path), (path, text)))
        .collect();
    let imports: BTreeSet<(&Module, &Module)> = files
        .iter()
        .flat_map(|(own, (_, text))| {
            let code = code(text);
            let targets = imported(own, without_tests(&code));
            let found = targets.into_iter().filter_map(|path| file_of(&files, path));
            found.map(move |other| (own, other)).collect::<Vec<_>>()
        })
        .collect();
    let apart = |a: &Module, b: &Module| !a.starts_with(b) && !b.starts_with(a);
    let mutual = imports.iter().filter(|(a, b)| a < b && apart(a, b) && imports.contains(&(b, a)));
    mutual.map(|(a, b)| format!("{} and {} import each other", files[*a].0, files[*b].0)).collect()
}

fn module(folder: &str, path: &str) -> Module {
    let inside = path.trim_start_matches(folder).trim_start_matches('/').trim_end_matches(".rs");
    let mut parts: Module = inside.split('/').map(str::to_owned).collect();
    let is_root = |name: &String| ["mod", "lib", "main"].contains(&name.as_str());
    if parts.last().is_some_and(is_root) {
        parts.pop();
    }
    parts
}

/// The file that has a path: the longest module that the path starts with.
fn file_of(files: &BTreeMap<Module, (String, String)>, mut path: Module) -> Option<&Module> {
    loop {
        if let Some((module, _)) = files.get_key_value(&path) {
            return Some(module);
        }
        path.pop()?;
    }
}

/// The paths in the crate that the `use` statements of `own` name.
fn imported(own: &Module, code: &str) -> Vec<Module> {
    let statements = code.split(';').filter_map(|statement| {
        let at =
            statement.rfind("use ").filter(|at| *at == 0 || !statement[..*at].ends_with('_'))?;
        Some(&statement[at + "use ".len()..])
    });
    statements.flat_map(flattened).filter_map(|path| in_crate(own, &path)).collect()
}

/// The paths of a tree such as `a::{b, c::{d, e}}`.
fn flattened(tree: &str) -> Vec<Module> {
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![words(tree)] };
    let list = rest.rsplit_once('}').map_or(rest, |(list, _)| list);
    let prefix = words(prefix);
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let rest = flattened(&list[start..at]).into_iter();
                paths.extend(rest.map(|rest| [prefix.clone(), rest].concat()));
                start = at + 1;
            }
            _ => {}
        }
    }
    paths
}

fn words(path: &str) -> Module {
    let path = path.split(" as ").next().unwrap_or(path);
    path.split("::").map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

/// The path from the crate's root, if it is one of the crate.
fn in_crate(own: &Module, path: &[String]) -> Option<Module> {
    let (first, mut rest) = path.split_first()?;
    let mut base = match first.as_str() {
        "crate" => Module::new(),
        "self" => own.clone(),
        "super" => own[..own.len().checked_sub(1)?].to_vec(),
        _ => return None,
    };
    while let Some((_, after)) = rest.split_first().filter(|(word, _)| *word == "super") {
        base.pop();
        rest = after;
    }
    base.extend_from_slice(rest);
    Some(base)
}

#[test]
fn paths_are_flattened_and_found() {
    let own = words("train::builder");
    let paths = imported(
        &own,
        "\nuse super::{a::{b, c as d}, e};\npub(crate) use crate::f::g;\nuse std::fs;",
    );
    let text: Vec<String> = paths.iter().map(|path| path.join("::")).collect();
    assert_eq!(text, ["train::a::b", "train::a::c", "train::e", "f::g"]);
}
