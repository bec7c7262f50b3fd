//! The credential of a service: the secret's value, where it goes into a request, what of the
//! agent's own is removed first, and the placeholder that the agent holds instead.
//!
//! Everything here is pure. Deliberately absent: where secrets are kept (`store`), which service
//! uses which (`service`), and any way to print a secret.

mod secret;

pub use secret::{BadSecret, BadSecretName, SECRET_BYTES_MAX, Secret, SecretName};
