//! The credential of a service: the secret's value, where it goes into a request, what of the
//! agent's own is removed first, the placeholder that the agent holds instead, and what keeps the secret from coming back.
//!
//! Everything here is pure. Deliberately absent: where secrets are kept (`store`), which service
//! uses which (`service`), and any way to print a secret. **Invariant**: [`Injector::apply`] takes
//! the [`Stripped`] that only [`Slots`] makes, so nothing is injected beside an agent's own value.

mod injection;
mod placeholder;
pub(crate) mod query;
mod scrub;
mod seal;
mod secret;
mod slots;

pub use injection::{BadInjection, Injection, Injector};
pub use placeholder::{BadShape, Shape, is_placeholder, placeholder};
pub use scrub::{Known, Patterns, Scrubber, Turn};
pub use seal::{BadTokenName, Format, Sealer, TokenNames, begins_as_json};
pub use secret::{BadSecret, BadSecretName, SECRET_BYTES_MAX, SECRET_BYTES_MIN, Secret, SecretName};
pub use slots::{BadSlot, Slot, Slots, Stripped, Unwritable};
