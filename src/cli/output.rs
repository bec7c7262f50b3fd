//! Words for people, data for programs, files for later.

use std::fmt::Display;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::failure::Failure;

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
    print(format_args!("{value:#}"))
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
