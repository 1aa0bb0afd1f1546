//! The library's settings -> the command line's options, in the text of errors.
//!
//! The library calls a setting as its builder does, in backquotes: `` `recompute(auto)` ``. Who
//! works on the command line knows it as `--recompute auto`, and `` `clip_norm(None)` `` as
//! `no --clip-norm`. What the library lists with `` `engine::wgpu::gpus()` ``, the command
//! `devices` lists.

use zerobubble::error::Error;

use crate::args::is_option_of_train;

/// Settings whose option has another name, besides `-` in place of `_`.
const OTHERWISE: [(&str, &str); 1] = [("chunks_per_device", "chunks")];

/// Functions that are commands.
const COMMANDS: [(&str, &str); 1] = [("engine::wgpu::gpus()", "zerobubble devices")];

/// The error as it reads on the command line.
pub fn on_command_line(error: Error) -> Error {
    Error { problem: with_flags(&error.problem), hint: with_flags(&error.hint), ..error }
}

/// A text of the library as it reads on the command line.
pub fn with_flags(text: &str) -> String {
    let mut parts = text.split('`');
    let mut translated = parts.next().unwrap_or_default().to_owned();
    // Between two backquotes is a quoted part, and behind it one that is not.
    while let Some(quoted) = parts.next() {
        let translation = command(quoted).or_else(|| option(quoted));
        translated += &translation.unwrap_or_else(|| format!("`{quoted}`"));
        translated += parts.next().unwrap_or_default();
    }
    translated
}

/// A function as the command that does the same, if there is one.
fn command(function: &str) -> Option<String> {
    let found = COMMANDS.iter().find(|(own, _)| *own == function);
    found.map(|(_, command)| (*command).to_owned())
}

/// `name(value)` as an option of `train`, if it is one.
fn option(setting: &str) -> Option<String> {
    let (name, value) = setting.strip_suffix(')')?.split_once('(')?;
    let renamed = OTHERWISE.iter().find(|(own, _)| *own == name).map(|(_, option)| *option);
    let option = renamed.map_or_else(|| name.replace('_', "-"), str::to_owned);
    is_option_of_train(&option).then(|| match value {
        "None" => format!("no --{option}"),
        _ => format!("--{option} {value}").trim_end().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_functions_of_the_library_are_options_and_commands() {
        let rows = [
            ("`recompute(auto)`, or more devices", "--recompute auto, or more devices"),
            ("`schedule(zb-h1)` or `devices(cpux4)`", "--schedule zb-h1 or --devices cpux4"),
            ("`chunks_per_device(2)`", "--chunks 2"),
            ("`post_validation()`", "--post-validation"),
            ("`clip_norm(None)`, not `clip_norm(1)`", "no --clip-norm, not --clip-norm 1"),
            ("`engine::wgpu::gpus()`, or cpux2", "zerobubble devices, or cpux2"),
            ("op `x(2)` of `a.b`", "op `x(2)` of `a.b`"),
            ("plain", "plain"),
        ];
        for (library, expected) in rows {
            assert_eq!(with_flags(library), expected);
        }
    }
}
