//! The built-in services. Each file was checked against its vendor's documentation, which it names.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::document::{Document, Table};
use super::{Definition, Overlay, Problem};

/// File names and texts, embedded.
const FILES: [(&str, &str); 10] = [
    ("catalogue/anthropic.toml", include_str!("catalogue/anthropic.toml")),
    ("catalogue/gemini.toml", include_str!("catalogue/gemini.toml")),
    ("catalogue/github.toml", include_str!("catalogue/github.toml")),
    ("catalogue/gitlab.toml", include_str!("catalogue/gitlab.toml")),
    ("catalogue/huggingface.toml", include_str!("catalogue/huggingface.toml")),
    ("catalogue/linear.toml", include_str!("catalogue/linear.toml")),
    ("catalogue/notion.toml", include_str!("catalogue/notion.toml")),
    ("catalogue/openai.toml", include_str!("catalogue/openai.toml")),
    ("catalogue/slack.toml", include_str!("catalogue/slack.toml")),
    ("catalogue/stripe.toml", include_str!("catalogue/stripe.toml")),
];

/// Definitions by name.
#[derive(Debug, Clone, Default)]
pub struct Catalogue(BTreeMap<Arc<str>, Definition>);

impl Catalogue {
    /// A definition by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Definition> {
        self.0.get(name)
    }

    /// All definitions, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Definition> {
        self.0.values()
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    /// Puts a definition in, in place of one of the same name.
    pub(crate) fn insert(&mut self, definition: Definition) {
        self.0.insert(definition.name().into(), definition);
    }

    /// Reads a file of `[[service]]` tables that stand alone.
    fn read(&mut self, file: &str, text: &str) -> Vec<Problem> {
        let document = Document::new(file, text);
        let root = document.parse();
        let mut top = Table::new(&document, root.get_ref(), String::new(), root.span());
        let file: Arc<str> = file.into();
        for table in top.tables("service", "[[service]]") {
            if let Some(overlay) = Overlay::read(table, &file) {
                self.insert(overlay.alone());
            }
        }
        top.finish();
        document.into_problems()
    }
}

/// The built-in services, read once. A service of it counts once `narrows.toml` names it.
#[must_use]
pub fn catalogue() -> &'static Catalogue {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    CATALOGUE.get_or_init(|| {
        let mut catalogue = Catalogue::default();
        for (file, text) in FILES {
            // That there are none is a test's business: the files are part of the program.
            drop(catalogue.read(file, text));
        }
        catalogue
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_file_is_sound_and_its_rows_hold() {
        let mut catalogue = Catalogue::default();
        for (file, text) in FILES {
            assert_eq!(catalogue.read(file, text), [], "{file}");
        }
        assert_eq!(catalogue.names().count(), FILES.len());
        for definition in catalogue.iter() {
            let credential = definition.suggested_credential().cloned();
            assert!(credential.is_some(), "{} suggests a credential's name", definition.name());
            for credential in [credential, None] {
                let service = definition.clone().with_credential(credential).build().expect("a service");
                assert_eq!(service.failed_tests(), [], "{}", definition.name());
            }
        }
    }
}
