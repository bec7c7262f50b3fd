//! What is kept on disk: the home, its keys and its CA, the sealed secrets, the list of revocations.
//!
//! Private files are read only after [`private`] has looked at their modes; they are replaced whole, never edited in
//! place. Deliberately absent: policy, the network, and any way to list secrets with their values.

mod atomic;
pub mod bearer;
pub mod ca;
mod error;
mod home;
pub mod keys;
pub mod mounted;
pub mod operator;
pub mod private;
pub mod random;
pub mod revoked;
mod secrets;
pub mod watch;
pub mod way;

pub use error::StoreError;
pub use home::Home;
pub use secrets::SecretStore;
