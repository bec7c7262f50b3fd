//! `capctl secret`: the real credentials. Their values come from stdin, a variable or a file, never from an argument.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::credential::{SECRET_BYTES_MAX, Secret, SecretName};
use crate::service::catalogue;
use crate::store::{Home, SecretStore};

use super::failure::Failure;
use super::output::{home_option, print, print_json, say};
use super::root::run_line;

/// The credentials that are injected: set, list, remove.
#[derive(Debug, clap::Subcommand)]
#[command(
    before_help = "Examples:\n  capctl secret set github < token.txt\n  capctl secret set stripe --from-env STRIPE_API_KEY\n  capctl secret list"
)]
pub(super) enum Verb {
    /// Seals a value under a name; reads it from stdin unless told otherwise
    #[command(
        before_help = "Examples:\n  capctl secret set github                      reads the value from stdin\n  capctl secret set github --from-env GH_TOKEN"
    )]
    Set {
        /// The name that services refer to
        name: SecretName,
        /// Takes the value of this environment variable
        #[arg(long, value_name = "VAR", conflicts_with = "from_file")]
        from_env: Option<String>,
        /// Takes the content of this file
        #[arg(long, value_name = "F")]
        from_file: Option<PathBuf>,
    },
    /// Prints the names, never the values
    #[command(before_help = "Example:\n  capctl secret list --json")]
    List {
        /// As a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Forgets a value
    #[command(before_help = "Example:\n  capctl secret rm github")]
    Rm {
        /// The name
        name: SecretName,
    },
}

impl Verb {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        home.check()?;
        let store = SecretStore::new(home);
        match self {
            Self::Set { name, from_env, from_file } => {
                let value = value(&name, from_env.as_deref(), from_file)?;
                let secret = Secret::new(trimmed(&value).to_vec()).map_err(|error| {
                    let flag = home_option(home);
                    Failure::of(&error).hint(format!("capctl{flag} secret set {name} < FILE-WITH-THE-KEY-ALONE"))
                })?;
                let replaced = store.set(&name, &secret)?;
                say(format_args!("{} the secret {name}", if replaced { "replaced" } else { "sealed" }));
                say(format_args!("next: {}", next(home, &name)));
                Ok(ExitCode::SUCCESS)
            }
            Self::List { json } => {
                let names = store.list()?;
                if json {
                    print_json(&json!(names.iter().map(SecretName::as_str).collect::<Vec<_>>()))?;
                    return Ok(ExitCode::SUCCESS);
                }
                if names.is_empty() {
                    say(format_args!("no secrets yet: capctl{} secret set NAME", home_option(home)));
                }
                names.iter().try_for_each(print)?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Rm { name } => {
                if !store.remove(&name)? {
                    return Err(Failure::new(format_args!("there is no secret {name}"))
                        .hint(format!("capctl{} secret list", home_option(home))));
                }
                say(format_args!(
                    "forgot the secret {name}; services that use it answer `secret_unavailable` from now on"
                ));
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// What to type next: a service that uses the secret, unless one does.
fn next(home: &Home, name: &SecretName) -> String {
    let flag = home_option(home);
    let config = Config::load(home).ok();
    let services = config.iter().flat_map(|config| config.services.services());
    if let Some(service) = services.clone().find(|service| service.credential() == Some(name)) {
        return run_line(home, config.as_ref(), service.name());
    }
    let suggests = |of: &&str| catalogue().get(of).is_some_and(|it| it.suggested_credential() == Some(name));
    let is_free = |of: &&str| !services.clone().any(|service| &**service.name() == *of);
    match catalogue().names().find(|of| suggests(of) && is_free(of)) {
        Some(service) => format!("capctl{flag} service add {service}"),
        None => format!("a service that uses it: capctl{flag} service add NAME --credential {name}"),
    }
}

fn value(name: &SecretName, from_env: Option<&str>, from_file: Option<PathBuf>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if let Some(variable) = from_env {
        let value = std::env::var_os(variable).map(std::os::unix::ffi::OsStringExt::into_vec);
        let missing = || Failure::new(format_args!("the variable {variable} is not set"));
        return value.map(Zeroizing::new).ok_or_else(missing);
    }
    if let Some(path) = from_file {
        let file = std::fs::File::open(&path);
        let file = file.map_err(|error| Failure::new(format_args!("{} cannot be read: {error}", path.display())))?;
        return read(file);
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let _silent = Silent::start();
        say(format_args!("the value of {name}, then Enter and Ctrl-D (it is not shown):"));
        return read(stdin);
    }
    read(stdin)
}

fn read(source: impl io::Read) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Reserved at once, so that no piece of it is left behind by a buffer that grew.
    let mut value = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 3));
    let read = source.take(SECRET_BYTES_MAX as u64 + 3).read_to_end(&mut value);
    read.map_err(|error| Failure::new(format_args!("the value cannot be read: {error}")))?;
    Ok(value)
}

/// Without the one line ending that editors and `echo` add.
fn trimmed(value: &[u8]) -> &[u8] {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    value.strip_suffix(b"\r").unwrap_or(value)
}

/// The terminal does not show what is typed, until this is dropped.
struct Silent(nix::sys::termios::Termios);

impl Silent {
    fn start() -> Option<Self> {
        use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
        let before = tcgetattr(io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &silent).ok()?;
        Some(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = nix::sys::termios::tcsetattr(io::stdin(), nix::sys::termios::SetArg::TCSANOW, &self.0);
    }
}
