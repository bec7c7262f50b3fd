//! Changes to `narrows.toml` that keep what a person wrote: comments, order, spacing.

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

use crate::credential::{Injection, SecretName};

/// What `capctl service add` writes.
#[derive(Debug, Clone, Default)]
pub struct NewService {
    /// The name; a built-in one needs nothing else but, mostly, a credential.
    pub name: String,
    /// The secret's name.
    pub credential: Option<SecretName>,
    /// Host patterns, as typed.
    pub hosts: Vec<String>,
    /// A header template, as typed, or another form.
    pub inject: Option<Inject>,
}

/// The forms of `inject`.
#[derive(Debug, Clone)]
pub enum Inject {
    /// `Authorization: Bearer {secret}`.
    Header(String),
    /// `{ basic = "user" }`.
    Basic(String),
    /// `{ query = "key" }`.
    Query(String),
}

impl Inject {
    /// Reads what a person types: a header template, `basic:USER` or `query:NAME`.
    ///
    /// # Errors
    /// The rule that the text breaks, as [`Injection`] says it.
    pub fn parse(text: &str) -> Result<Self, crate::credential::BadInjection> {
        if let Some(user) = text.strip_prefix("basic:") {
            return Injection::basic(user).map(|_| Self::Basic(user.to_owned()));
        }
        if let Some(name) = text.strip_prefix("query:") {
            return Injection::query(name).map(|_| Self::Query(name.to_owned()));
        }
        Injection::header(text).map(|_| Self::Header(text.to_owned()))
    }
}

/// Why the file cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The text is no TOML; the message says where.
    #[error("narrows.toml cannot be changed, because it does not parse: {0}")]
    Syntax(String),
    /// `service` is there, but not as `[[service]]` tables.
    #[error("narrows.toml has a `service` that is not a list of [[service]] tables")]
    Shape,
    /// A service of this name is there already.
    #[error("narrows.toml has a service \"{0}\" already")]
    Exists(String),
    /// No service of this name is there.
    #[error("narrows.toml has no service \"{0}\"")]
    Missing(String),
}

/// The text with one more `[[service]]` at its end.
///
/// # Errors
/// [`EditError`]; whether the result is a sound configuration is for [`super::Config::parse`] to say.
pub fn add_service(text: &str, new: &NewService) -> Result<String, EditError> {
    let mut document = parse(text)?;
    let services = services(&mut document)?;
    if services.iter().any(|table| name_of(table) == Some(&new.name)) {
        return Err(EditError::Exists(new.name.clone()));
    }
    let mut table = Table::new();
    table.insert("name", value(&new.name));
    if let Some(credential) = &new.credential {
        table.insert("credential", value(credential.as_str()));
    }
    if !new.hosts.is_empty() {
        table.insert("hosts", value(new.hosts.iter().collect::<Array>()));
    }
    match &new.inject {
        Some(Inject::Header(template)) => drop(table.insert("inject", value(template))),
        Some(Inject::Basic(user)) => drop(table.insert("inject", one_key("basic", user))),
        Some(Inject::Query(name)) => drop(table.insert("inject", one_key("query", name))),
        None => {}
    }
    table.decor_mut().set_prefix("\n");
    services.push(table);
    Ok(document.to_string())
}

/// The text without the `[[service]]` of this name and what belongs to it. Comments above it go too.
///
/// # Errors
/// [`EditError`].
pub fn remove_service(text: &str, name: &str) -> Result<String, EditError> {
    let mut document = parse(text)?;
    let services = services(&mut document)?;
    let before = services.len();
    services.retain(|table| name_of(table) != Some(name));
    if services.len() == before {
        return Err(EditError::Missing(name.to_owned()));
    }
    if services.is_empty() {
        document.remove("service");
    }
    Ok(document.to_string())
}

fn parse(text: &str) -> Result<DocumentMut, EditError> {
    text.parse().map_err(|error: toml_edit::TomlError| EditError::Syntax(error.message().to_owned()))
}

fn services(document: &mut DocumentMut) -> Result<&mut ArrayOfTables, EditError> {
    let item = document.entry("service").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    item.as_array_of_tables_mut().ok_or(EditError::Shape)
}

fn name_of(table: &Table) -> Option<&str> {
    table.get("name")?.as_str()
}

fn one_key(key: &str, text: &str) -> Item {
    let mut table = InlineTable::new();
    table.insert(key, Value::from(text));
    value(table)
}
