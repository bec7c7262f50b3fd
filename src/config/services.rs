//! The services in use: `[[service]]` of `narrows.toml`, and all of `services.d/`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CONFIG_FILE, Problem, read_private};
use crate::service::document::{Document, Table, nearest};
use crate::service::{Catalogue, Definition, MadeOf, Overlay, Router, Service};
use crate::store::{Home, private};

/// A folder's services are at most this many files: a bound on what a reload reads.
const FILES_MAX: usize = 1024;

/// What became of them.
pub(super) struct Read {
    pub(super) router: Option<Router>,
    pub(super) catalogue: Catalogue,
    pub(super) problems: Vec<Problem>,
}

pub(super) fn read(top: &mut Table<'_, '_>, home: &Home, mut catalogue: Catalogue, files: &mut Vec<PathBuf>) -> Read {
    let mut problems = Vec::new();
    let mut own = read_folder(&home.services_dir(), &mut catalogue, files, &mut problems);
    let file: Arc<str> = CONFIG_FILE.into();
    let mut definitions: Vec<Definition> = Vec::new();
    for table in top.tables("service", "[[service]]") {
        let document = table.document();
        let Some(overlay) = Overlay::read(table, &file) else { continue };
        // What `narrows.toml` says about a service of the folder takes that one's place.
        let name = overlay.name().to_owned();
        match resolve(overlay, &catalogue, document) {
            Some(Resolved::OnBase(definition)) => {
                own.retain(|service| service.name() != name);
                definitions.push(definition);
            }
            Some(Resolved::Alone(definition)) => definitions.push(definition),
            None => {}
        }
    }
    definitions.extend(own);
    let mut services: Vec<Service> = Vec::new();
    for definition in &definitions {
        match definition.build() {
            Ok(service) => services.push(service),
            Err(more) => problems.extend(more),
        }
    }
    let router = Router::new(services).map_err(|more| problems.extend(more)).ok();
    Read { router, catalogue, problems }
}

enum Resolved {
    Alone(Definition),
    OnBase(Definition),
}

fn resolve(overlay: Overlay, catalogue: &Catalogue, document: &Document<'_>) -> Option<Resolved> {
    let at = overlay.base_at();
    let name = overlay.name().to_owned();
    let base = match overlay.made_of(|name| catalogue.get(name).is_some()) {
        MadeOf::Itself => return Some(Resolved::Alone(overlay.alone())),
        MadeOf::Base(base) => base,
        MadeOf::Nothing => {
            let message = format!("[[service]] \"{name}\" has no `hosts`, and no built-in service has that name");
            document.report(Some(at), Some("name"), message, Some(nearest_service(&name, catalogue)));
            return None;
        }
    };
    let Some(definition) = catalogue.get(&base) else {
        let message = format!("`extends`: there is no service \"{}\" to extend", base.escape_default());
        document.report(Some(at), Some("extends"), message, Some(nearest_service(&base, catalogue)));
        return None;
    };
    let made = overlay.over(definition);
    if made.is_err() {
        let message = format!("[[service]] \"{name}\": \"{base}\" has several endpoints");
        let hint = "write [[service.endpoint]] tables instead of `hosts` and `inject`";
        document.report(Some(at), None, message, Some(hint.into()));
    }
    made.ok().map(Resolved::OnBase)
}

fn nearest_service(name: &str, catalogue: &Catalogue) -> String {
    let names: Vec<&str> = catalogue.names().collect();
    nearest(name, &names).replace("the keys here are", "the built-in services are")
}

/// Reads every `*.toml` of the folder, in the order of their names. Their services are in use, and
/// take the place of built-in ones of the same name.
fn read_folder(
    folder: &Path,
    catalogue: &mut Catalogue,
    files: &mut Vec<PathBuf>,
    problems: &mut Vec<Problem>,
) -> Vec<Definition> {
    let mut own: Vec<Definition> = Vec::new();
    for path in list(folder, problems) {
        files.push(path.clone());
        let label = format!("services.d/{}", path.file_name().unwrap_or_default().to_string_lossy());
        let text = match read_private(&path) {
            Ok(text) => text,
            Err(problem) => {
                problems.push(Problem { file: label.into(), ..problem });
                continue;
            }
        };
        let document = Document::new(&label, &text);
        let root = document.parse();
        let mut top = Table::new(&document, root.get_ref(), String::new(), root.span());
        let file: Arc<str> = label.as_str().into();
        for table in top.tables("service", "[[service]]") {
            let Some(overlay) = Overlay::read(table, &file) else { continue };
            if let Some(Resolved::Alone(made) | Resolved::OnBase(made)) = resolve(overlay, catalogue, &document) {
                own.push(made);
            }
        }
        top.finish();
        problems.extend(document.into_problems());
    }
    for definition in &own {
        catalogue.insert(definition.clone());
    }
    own
}

fn list(folder: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problems.push(Problem::of_file("services.d", format!("cannot be read: {error}")));
            return Vec::new();
        }
    };
    if let Err(error) = private::check_folder(folder) {
        problems.push(Problem { hint: error.hint(), ..Problem::of_file("services.d", error.to_string()) });
        return Vec::new();
    }
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    if paths.len() > FILES_MAX {
        problems.push(Problem::of_file("services.d", format!("holds more than {FILES_MAX} files")));
        paths.clear();
    }
    paths.sort();
    paths
}
