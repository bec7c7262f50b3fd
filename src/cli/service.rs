//! `capctl service`: which APIs the proxy serves.

use std::process::ExitCode;

use serde_json::json;

use crate::config::edit::{EditError, Inject, NewService, add_service, remove_service};
use crate::config::{Config, Problem};
use crate::credential::SecretName;
use crate::service::{Catalogue, Service};
use crate::store::{Home, SecretStore, private};

use super::capability::config;
use super::failure::Failure;
use super::output::{home_option, print, print_json, say, write_private};
use super::root::run_line;

/// The APIs that are served: from the catalogue, or your own.
#[derive(Debug, clap::Subcommand)]
#[command(
    before_help = "Examples:\n  capctl service add github\n  capctl service add acme --host api.acme.test --credential acme-key --inject 'Authorization: Bearer {secret}'\n  capctl service list"
)]
pub(super) enum Verb {
    /// Adds a service to narrows.toml, whose comments stay
    #[command(
        before_help = "Examples:\n  capctl service add github                  from the catalogue\n  capctl service add acme --host api.acme.test --credential acme-key --inject 'X-Api-Key: {secret}'"
    )]
    Add {
        /// A name of the catalogue, or one of your own
        name: String,
        /// "host", "host:port", "*.suffix" or "http://host:port"
        #[arg(long, value_name = "H")]
        host: Vec<String>,
        /// The secret's name in the store
        #[arg(long, value_name = "S", conflicts_with = "no_credential")]
        credential: Option<SecretName>,
        /// Injects nothing: the agent's own login passes
        #[arg(long)]
        no_credential: bool,
        /// Where the secret goes: "Header: …{secret}", "basic:USER" or "query:NAME"
        #[arg(long, value_name = "FORM")]
        inject: Option<String>,
    },
    /// Prints the services in use, then what the catalogue has
    #[command(before_help = "Example:\n  capctl service list --json")]
    List {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Prints one service: hosts, credential, actions, params
    #[command(before_help = "Example:\n  capctl service show github")]
    Show {
        /// Its name
        name: String,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Removes a service from narrows.toml
    #[command(before_help = "Example:\n  capctl service rm acme")]
    Rm {
        /// Its name
        name: String,
    },
}

impl Verb {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        match self {
            Self::Add { name, host, credential, no_credential, inject } => {
                add(home, name, host, credential, no_credential, inject.as_deref())
            }
            Self::List { json } => list(home, json),
            Self::Show { name, json } => show(home, &name, json),
            Self::Rm { name } => {
                edit(home, &name, |text| remove_service(text, &name))?;
                say(format_args!("removed the service {name}; a running proxy takes it on by itself"));
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn add(
    home: &Home,
    name: String,
    hosts: Vec<String>,
    credential: Option<SecretName>,
    no_credential: bool,
    inject: Option<&str>,
) -> Result<ExitCode, Failure> {
    let config = config(home)?;
    let known = config.catalogue.get(&name);
    if known.is_none() && hosts.is_empty() {
        return Err(unknown(&config.catalogue, &name));
    }
    let credential = if no_credential {
        None
    } else {
        credential.or_else(|| known.and_then(|known| known.suggested_credential().cloned()))
    };
    let inject = inject.map(Inject::parse).transpose();
    let inject = inject.map_err(|error| Failure::usage(format_args!("--inject: {error}")))?;
    let new = NewService { name, credential, hosts, inject };
    edit(home, &new.name, |text| add_service(text, &new))?;
    let (name, flag) = (&new.name, home_option(home));
    say(format_args!("added the service {name}; a running proxy takes it on by itself"));
    match &new.credential {
        Some(secret) if SecretStore::new(home).list()?.contains(secret) => {
            say(format_args!("next: {}", run_line(home, Some(&config), name)));
        }
        Some(secret) => say(format_args!("next: capctl{flag} secret set {secret}")),
        None => say("it has no credential: what the agent sends passes as it is"),
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(catalogue: &Catalogue, name: &str) -> Failure {
    let names: Vec<&str> = catalogue.names().collect();
    let near = names.iter().find(|known| strsim::damerau_levenshtein(known, name) <= 2);
    let hint = match near {
        Some(near) => format!("did you mean {near}?"),
        None => format!("give its --host; or one of the catalogue: {}", names.join(", ")),
    };
    Failure::usage(format_args!("the catalogue has no {name:?}")).hint(hint)
}

/// Changes narrows.toml if the result is a sound configuration.
fn edit(home: &Home, name: &str, change: impl FnOnce(&str) -> Result<String, EditError>) -> Result<(), Failure> {
    home.check()?;
    let _turn = home.lock()?;
    let bytes = private::read(&home.config())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::new("narrows.toml is not UTF-8"))?;
    let changed = change(text).map_err(|error| {
        let flag = home_option(home);
        Failure::of(&error).hint(match error {
            EditError::Exists(_) => format!("capctl{flag} service rm {name}, then this line again"),
            _ => format!("capctl{flag} service list"),
        })
    })?;
    if let Err(problems) = Config::parse(&changed, home) {
        let all: Vec<String> = problems.iter().map(Problem::to_string).collect();
        return Err(Failure::new(format_args!("nothing was changed: {}", all.join("; "))));
    }
    write_private(&home.config(), &changed, true)
}

fn list(home: &Home, as_json: bool) -> Result<ExitCode, Failure> {
    let config = config(home)?;
    if as_json {
        let used: Vec<_> = config.services.services().iter().map(|service| described(service)).collect();
        let known: Vec<&str> = config.catalogue.names().collect();
        print_json(&json!({ "services": used, "catalogue": known }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for service in config.services.services() {
        let hosts: Vec<String> = hosts(service).collect();
        let credential = service.credential().map_or("-", SecretName::as_str);
        print(format_args!("{:<14} {credential:<14} {}", service.name(), hosts.join(" ")))?;
    }
    let used = |name: &&str| config.services.service(name).is_none();
    let more: Vec<&str> = config.catalogue.names().filter(used).collect();
    let flag = home_option(home);
    say(format_args!("not in use, add with `capctl{flag} service add NAME`: {}", more.join(" ")));
    Ok(ExitCode::SUCCESS)
}

fn show(home: &Home, name: &str, as_json: bool) -> Result<ExitCode, Failure> {
    let config = config(home)?;
    let built;
    let service: &Service = match (config.services.service(name), config.catalogue.get(name)) {
        (Some(service), _) => service,
        (None, Some(definition)) => {
            let definition = definition.clone().with_credential(definition.suggested_credential().cloned());
            built = definition.build().map_err(|_| Failure::new(format_args!("{name} cannot be built")))?;
            &built
        }
        (None, None) => return Err(unknown(&config.catalogue, name)),
    };
    if as_json {
        print_json(&described(service))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(format_args!("service     {}  ({})", service.name(), service.defined_at()))?;
    print(format_args!("credential  {}", service.credential().map_or("-", SecretName::as_str)))?;
    hosts(service).try_for_each(|host| print(format_args!("host        {host}")))?;
    print(format_args!("params      {}", service.params().join(" ")))?;
    print(format_args!("actions     {}", service.actions().join(" ")))?;
    if let Some(docs) = config.catalogue.get(name).and_then(|definition| definition.docs()) {
        print(format_args!("docs        {docs}"))?;
    }
    let param = service.params().first().map(|param| format!(" {param}=VALUE")).unwrap_or_default();
    say(format_args!("a grant reads '{name}:read{param}'"));
    Ok(ExitCode::SUCCESS)
}

fn hosts(service: &Service) -> impl Iterator<Item = String> {
    service.endpoints().iter().flat_map(|endpoint| endpoint.hosts()).map(ToString::to_string)
}

fn described(service: &Service) -> serde_json::Value {
    json!({
        "name": &**service.name(),
        "credential": service.credential().map(SecretName::as_str),
        "hosts": hosts(service).collect::<Vec<_>>(),
        "terminate": service.terminate(),
        "params": service.params(),
        "actions": service.actions(),
        "defined_at": service.defined_at(),
    })
}
