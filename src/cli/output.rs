//! Words for people, data for programs, files for later.

use std::fmt::{Display, Write as _};
use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::failure::Failure;
use crate::store::Home;

/// Talk: to stderr.
pub(super) fn say(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Data: to stdout, a line.
pub(super) fn print(text: impl Display) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}").map_err(|error| Failure::new(format_args!("stdout: {error}")))
}

/// One datum: as it is, or for programs as `{ name: datum }`.
pub(super) fn print_one(name: &str, value: impl Display, as_json: bool) -> Result<(), Failure> {
    if as_json { print_json(&serde_json::json!({ name: value.to_string() })) } else { print(value) }
}

/// Data, as JSON for programs.
pub(super) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(plain(&format!("{value:#}")))
}

/// JSON with nothing in it that moves a terminal's cursor or hides text: what can do that stands in strings alone, where
/// it may as well be escaped (RFC 8259 §7).
pub(super) fn plain(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        // Of ASCII all but this one is escaped already, or is white space between tokens.
        let hidden = c == '\x7f' || !c.is_ascii() && c.escape_debug().len() > 1;
        if hidden {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// Writes a private file (0600): whole or not at all. One that is there stays, unless `replace`.
pub(super) fn write_private(path: &Path, text: &str, replace: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(format_args!("{} cannot be written: {error}", path.display()));
    if !replace {
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = created.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::new(format_args!("{} is there already", path.display()))
                .hint("give another --out, or --force to replace it".to_owned()),
            _ => failed(error),
        })?;
        return file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.as_file().set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// A path as a person may paste it into a shell.
pub(super) fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@:,=".contains(&b));
    if plain && !text.is_empty() { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// What a hint has to say so that it means this home: nothing where `capctl` finds it by itself.
pub(super) fn home_option(home: &Home) -> String {
    let is_found = Home::locate(None).is_ok_and(|found| found.dir() == home.dir());
    if is_found { String::new() } else { format!(" --home {}", shell(home.dir())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_for_programs_moves_no_cursor_and_means_the_same() {
        let value = serde_json::json!({ "a": "x\u{202e}\u{9b}2J\u{7f}\u{1b}[0m\n\"é\\\u{e0041}", "b": ["\u{200b}"] });
        let shown = plain(&format!("{value:#}"));
        assert!(shown.chars().all(|c| c == '\n' || c == 'é' || (' '..='~').contains(&c)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }
}
