//! The sealed secrets: `secrets.json`, and `store.key` that opens it.
//!
//! AES-256-GCM, a random nonce per value, the value's name as associated data, so that a value moved under another name
//! does not open. The file is versioned, read whole and replaced whole, under the home's lock. Deliberately absent: the
//! operating system's keychain (its crates bring a D-Bus stack and need a session, which a daemon has not), and any
//! listing that opens values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Home, StoreError, atomic, private, random};
use crate::clock::UnixSeconds;
use crate::credential::{Secret, SecretName};

/// What this version reads and writes.
const VERSION: u32 = 1;
const KEY_BYTES: usize = 32;
const KEY_PREFIX: &str = "aes-256-gcm/";
/// Says what is sealed, so that nothing sealed with this key for another purpose opens here.
const PURPOSE: &[u8] = b"narrows-secret-1\0";

/// The secrets of a home. Nothing is kept in memory between calls; what is returned overwrites itself when dropped.
#[derive(Debug, Clone)]
pub struct SecretStore {
    home: Home,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    version: u32,
    /// Tells a wrong key from a changed value: the first half of a hash of the key.
    key: String,
    secrets: BTreeMap<String, SealedValue>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedValue {
    nonce: String,
    sealed: String,
    /// When it was set, in seconds since 1970; absent in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set_at: Option<u64>,
}

impl SecretStore {
    /// The store of `home`; nothing is read yet.
    #[must_use]
    pub fn new(home: &Home) -> Self {
        Self { home: home.clone() }
    }

    /// Opens one secret; `None` when the store has none of that name.
    ///
    /// # Errors
    /// [`StoreError::WrongKey`], [`StoreError::Damaged`], [`StoreError::Format`]; as [`private::check_private`].
    pub fn get(&self, name: &SecretName) -> Result<Option<Secret>, StoreError> {
        let Some(sealed) = self.read()? else { return Ok(None) };
        let Some(value) = sealed.secrets.get(name.as_str()) else { return Ok(None) };
        let key = self.key_of(&sealed)?;
        self.open(&key, name.as_str(), value).map(Some)
    }

    /// Opens every secret. One that does not open fails the whole.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn load(&self) -> Result<BTreeMap<SecretName, Secret>, StoreError> {
        let Some(sealed) = self.read()?.filter(|sealed| !sealed.secrets.is_empty()) else {
            return Ok(BTreeMap::new());
        };
        let key = self.key_of(&sealed)?;
        let opened = sealed.secrets.iter().map(|(name, value)| {
            let secret = self.open(&key, name, value)?;
            Ok((self.name(name)?, secret))
        });
        opened.collect()
    }

    /// The names, in order. Needs no key.
    ///
    /// # Errors
    /// [`StoreError::Format`]; as [`private::check_private`].
    pub fn list(&self) -> Result<Vec<SecretName>, StoreError> {
        let names = self.read()?.map(|sealed| sealed.secrets).unwrap_or_default();
        names.keys().map(|name| self.name(name)).collect()
    }

    /// When each secret was set, for those of which the file says so. Needs no key.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn times(&self) -> Result<BTreeMap<SecretName, UnixSeconds>, StoreError> {
        let values = self.read()?.map(|sealed| sealed.secrets).unwrap_or_default();
        let known = values.iter().filter_map(|(name, value)| Some((name, UnixSeconds(value.set_at?))));
        known.map(|(name, at)| Ok((self.name(name)?, at))).collect()
    }

    /// Seals a secret under its name; the first one makes `store.key`. Returns whether there was one before.
    ///
    /// # Errors
    /// As [`Self::get`]; [`StoreError::Random`], [`StoreError::Io`].
    pub fn set(&self, name: &SecretName, secret: &Secret) -> Result<bool, StoreError> {
        let _turn = self.home.lock()?;
        let mut sealed = match self.read()? {
            Some(sealed) if !sealed.secrets.is_empty() => sealed,
            _ => Sealed { version: VERSION, key: self.key_or_new()?.id, secrets: BTreeMap::new() },
        };
        let key = self.key_of(&sealed)?;
        let replaced = sealed.secrets.insert(name.as_str().to_owned(), seal(&key, name.as_str(), secret)?).is_some();
        self.write(&sealed)?;
        Ok(replaced)
    }

    /// Forgets a secret. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Format`], [`StoreError::Io`]; as [`private::check_private`].
    pub fn remove(&self, name: &SecretName) -> Result<bool, StoreError> {
        let _turn = self.home.lock()?;
        let Some(mut sealed) = self.read()? else { return Ok(false) };
        if sealed.secrets.remove(name.as_str()).is_none() {
            return Ok(false);
        }
        self.write(&sealed)?;
        Ok(true)
    }

    fn path(&self) -> PathBuf {
        self.home.secrets()
    }

    fn read(&self) -> Result<Option<Sealed>, StoreError> {
        let path = self.path();
        let bytes = match private::read(&path) {
            Ok(bytes) => bytes,
            Err(StoreError::Missing { path: missing }) if missing == path => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = |why| StoreError::Format { path: path.clone(), why };
        // The version first: a later one may have other members.
        let version: Version = serde_json::from_slice(&bytes).map_err(|_| damaged("it is not a store of secrets"))?;
        if version.version != VERSION {
            return Err(damaged("it was written by another version"));
        }
        let sealed = serde_json::from_slice(&bytes).map_err(|_| damaged("its members are not those of a store"))?;
        Ok(Some(sealed))
    }

    fn write(&self, sealed: &Sealed) -> Result<(), StoreError> {
        let path = self.path();
        let mut bytes = serde_json::to_vec_pretty(sealed)
            .map_err(|_| StoreError::Format { path: path.clone(), why: "it cannot be written" })?;
        bytes.push(b'\n');
        if bytes.len() as u64 > private::PRIVATE_BYTES_MAX {
            return Err(StoreError::TooLarge { path, bytes_max: private::PRIVATE_BYTES_MAX });
        }
        atomic::replace(&path, &bytes, 0o600)
    }

    /// The key that the file was sealed with.
    fn key_of(&self, sealed: &Sealed) -> Result<Key, StoreError> {
        let key = Key::read(&self.home.store_key())?;
        if key.id != sealed.key {
            return Err(StoreError::WrongKey { key: self.home.store_key(), store: self.path() });
        }
        Ok(key)
    }

    fn key_or_new(&self) -> Result<Key, StoreError> {
        let path = self.home.store_key();
        match Key::read(&path) {
            Err(StoreError::Missing { path: missing }) if missing == path => Key::create(&path),
            read => read,
        }
    }

    fn open(&self, key: &Key, name: &str, value: &SealedValue) -> Result<Secret, StoreError> {
        let damaged = || StoreError::Damaged { path: self.path(), name: name.to_owned() };
        let mut nonce = [0; 12];
        hex::decode_to_slice(&value.nonce, &mut nonce).map_err(|_| damaged())?;
        let mut bytes = Zeroizing::new(hex::decode(&value.sealed).map_err(|_| damaged())?);
        let length = key
            .aead
            .open_in_place(Nonce::from(&nonce), Aad::from(associated(name)), &mut bytes)
            .map_err(|_| damaged())?
            .len();
        bytes.truncate(length);
        Secret::new(std::mem::take(&mut *bytes)).map_err(|_| damaged())
    }

    fn name(&self, name: &str) -> Result<SecretName, StoreError> {
        name.parse().map_err(|_| StoreError::Format { path: self.path(), why: "a secret's name is not a name" })
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The key that seals values, and what tells it from others.
struct Key {
    aead: RandomizedNonceKey,
    id: String,
}

impl Key {
    fn new(bytes: &[u8; KEY_BYTES]) -> Result<Self, StoreError> {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"narrows-store-key-1\0");
        hash.update(bytes);
        let id = hex::encode(&hash.finish().as_ref()[..16]);
        // The library refuses a key of another length only.
        let aead = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| StoreError::Random)?;
        Ok(Self { aead, id })
    }

    fn read(path: &Path) -> Result<Self, StoreError> {
        let line = private::read(path)?;
        let malformed = || StoreError::Format { path: path.to_owned(), why: "it is not the key of a store" };
        let digits = line.trim_ascii().strip_prefix(KEY_PREFIX.as_bytes()).ok_or_else(malformed)?;
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(digits, bytes.as_mut()).map_err(|_| malformed())?;
        Self::new(&bytes)
    }

    fn create(path: &Path) -> Result<Self, StoreError> {
        let bytes = Zeroizing::new(random::bytes::<KEY_BYTES>()?);
        // Room for all of it from the start: growing would leave a copy behind.
        let mut line = Zeroizing::new(vec![0; KEY_PREFIX.len() + 2 * KEY_BYTES + 1]);
        let (prefix, rest) = line.split_at_mut(KEY_PREFIX.len());
        let (digits, newline) = rest.split_at_mut(2 * KEY_BYTES);
        prefix.copy_from_slice(KEY_PREFIX.as_bytes());
        newline.copy_from_slice(b"\n");
        hex::encode_to_slice(bytes.as_ref(), digits).map_err(|_| StoreError::Random)?;
        atomic::create(path, &line, 0o600)?;
        Self::new(&bytes)
    }
}

fn seal(key: &Key, name: &str, secret: &Secret) -> Result<SealedValue, StoreError> {
    let value = secret.expose();
    // Room for the tag: growing would leave a copy of the value behind. What is left in here is sealed.
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.len() + AES_256_GCM.tag_len()));
    bytes.extend_from_slice(value);
    let nonce =
        key.aead.seal_in_place_append_tag(Aad::from(associated(name)), &mut *bytes).map_err(|_| StoreError::Random)?;
    let set_at = Some(UnixSeconds::now().get());
    Ok(SealedValue { nonce: hex::encode(nonce.as_ref()), sealed: hex::encode(&*bytes), set_at })
}

fn associated(name: &str) -> Vec<u8> {
    [PURPOSE, name.as_bytes()].concat()
}
