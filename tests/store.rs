//! The store through its front door: modes, sealing, and what is refused one bit away.
#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use narrows::capability::{Algorithm, PrivateKey};
use narrows::clock::UnixSeconds;
use narrows::credential::{Secret, SecretName};
use narrows::net::leaf::LeafCache;
use narrows::store::ca::Ca;
use narrows::store::private::{check_private, read};
use narrows::store::watch::Watcher;
use narrows::store::{Home, SecretStore, StoreError, keys};
use serde_json::Value;
use tempfile::TempDir;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const CANARY: &str = "canary-value-that-nobody-may-see";

struct Place {
    _dir: TempDir,
    home: Home,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let home = Home::at(&dir.path().join("home")).expect("a home");
        assert!(home.create().expect("created"));
        Self { _dir: dir, home }
    }

    fn store(&self) -> SecretStore {
        SecretStore::new(&self.home)
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.home.secrets();
        let mut value = serde_json::from_slice(&fs::read(&path).expect("a store")).expect("JSON");
        change(&mut value);
        fs::write(&path, serde_json::to_vec(&value).expect("JSON")).expect("written");
    }
}

fn name(text: &str) -> SecretName {
    text.parse().expect("a name")
}

fn secret(text: &str) -> Secret {
    Secret::new(format!("{text}-0123456").into()).expect("a secret")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// Neither the message, nor what is behind it, nor Debug carries the value.
fn assert_silent(error: &StoreError) {
    for text in [error.to_string(), format!("{error:?}"), error.hint().unwrap_or_default()] {
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn a_secret_comes_back_and_is_nowhere_in_clear() {
    let place = Place::new();
    let store = place.store();
    assert!(store.get(&name("gh-pat")).expect("an empty store").is_none());
    assert!(store.list().expect("an empty store").is_empty());
    assert!(!store.set(&name("gh-pat"), &secret(CANARY)).expect("set"));
    assert!(!store.set(&name("acme"), &secret("other")).expect("set"));
    assert!(store.set(&name("acme"), &secret("another")).expect("replaced"));
    assert_eq!(
        store.get(&name("gh-pat")).expect("opened").expect("a secret").expose(),
        format!("{CANARY}-0123456").as_bytes()
    );
    assert_eq!(store.list().expect("names"), [name("acme"), name("gh-pat")]);
    let all = store.load().expect("opened");
    assert_eq!(all[&name("acme")].expose(), b"another-0123456");
    assert_eq!((mode(&place.home.secrets()), mode(&place.home.store_key())), (0o600, 0o600));
    for entry in fs::read_dir(place.home.dir()).expect("a home") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            assert!(!String::from_utf8_lossy(&fs::read(&path).expect("a file")).contains("canary"), "{path:?}");
        }
    }
    assert!(store.remove(&name("acme")).expect("removed"));
    assert!(!store.remove(&name("acme")).expect("gone"));
    assert_eq!(store.list().expect("names"), [name("gh-pat")]);
    assert_eq!(fs::read_to_string(place.home.store_key()).expect("a key").lines().count(), 1);
}

#[test]
fn every_value_has_a_nonce_of_its_own() {
    let place = Place::new();
    for text in ["a", "b", "c"] {
        place.store().set(&name(text), &secret("same")).expect("set");
    }
    let read = || serde_json::from_slice::<Value>(&fs::read(place.home.secrets()).expect("a store")).expect("JSON");
    let mut nonces: Vec<String> =
        read()["secrets"].as_object().expect("secrets").values().map(|value| value["nonce"].to_string()).collect();
    place.store().set(&name("a"), &secret("same")).expect("set");
    nonces.push(read()["secrets"]["a"]["nonce"].to_string());
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 4);
}

#[test]
fn a_changed_a_swapped_and_a_moved_value_do_not_open() {
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Value));
    let flip = |text: &Value| {
        let text = text.as_str().expect("hex");
        let digit = if text.ends_with('0') { "1" } else { "0" };
        Value::from(format!("{}{digit}", &text[..text.len() - 1]))
    };
    let changes: [Change<'_>; 5] = [
        ("tag", &|all| all["secrets"]["a"]["sealed"] = flip(&all["secrets"]["a"]["sealed"])),
        ("nonce", &|all| all["secrets"]["a"]["nonce"] = flip(&all["secrets"]["a"]["nonce"])),
        ("swapped", &|all| {
            let (a, b) = (all["secrets"]["a"].clone(), all["secrets"]["b"].clone());
            (all["secrets"]["a"], all["secrets"]["b"]) = (b, a);
        }),
        ("short", &|all| all["secrets"]["a"]["sealed"] = "00".into()),
        ("odd", &|all| all["secrets"]["a"]["sealed"] = "0".into()),
    ];
    for (what, change) in changes {
        let place = Place::new();
        place.store().set(&name("a"), &secret(CANARY)).expect("set");
        place.store().set(&name("b"), &secret("other")).expect("set");
        place.edit(change);
        let error = place.store().get(&name("a")).map(|_| ()).expect_err(what);
        assert!(matches!(&error, StoreError::Damaged { name, .. } if name == "a"), "{what}: {error:?}");
        assert_silent(&error);
        assert!(place.store().load().is_err(), "{what}");
        // Setting it anew heals it.
        place.store().set(&name("a"), &secret("new")).expect("set");
        assert!(place.store().get(&name("a")).expect("opened").is_some());
    }
}

#[test]
fn another_key_another_version_and_a_stranger_are_told_apart() {
    let place = Place::new();
    place.store().set(&name("a"), &secret(CANARY)).expect("set");
    let key = fs::read_to_string(place.home.store_key()).expect("a key");
    let other = if key.trim().ends_with('0') { "1\n" } else { "0\n" };
    fs::write(place.home.store_key(), format!("{}{other}", &key.trim()[..key.trim().len() - 1])).expect("written");
    for error in [
        place.store().get(&name("a")).map(|_| ()).expect_err("another key"),
        place.store().set(&name("b"), &secret("x")).map(|_| ()).expect_err("another key"),
    ] {
        assert!(matches!(error, StoreError::WrongKey { .. }), "{error:?}");
        assert_silent(&error);
    }
    fs::remove_file(place.home.store_key()).expect("removed");
    let error = place.store().get(&name("a")).map(|_| ()).expect_err("no key");
    assert!(matches!(&error, StoreError::Missing { path } if *path == place.home.store_key()), "{error:?}");
    // A lost key must not silently become a new one.
    assert!(place.store().set(&name("b"), &secret("x")).is_err());
    assert!(!place.home.store_key().exists());
    fs::write(place.home.store_key(), "ed25519-private/00\n").expect("written");
    set_mode(&place.home.store_key(), 0o600);
    assert!(matches!(place.store().get(&name("a")).map(|_| ()), Err(StoreError::Format { .. })));
    fs::write(place.home.store_key(), key).expect("written");
    assert!(place.store().get(&name("a")).expect("opened").is_some());
    place.edit(|all| all["version"] = 2.into());
    assert!(matches!(place.store().get(&name("a")).map(|_| ()), Err(StoreError::Format { .. })));
    place.edit(|all| (all["version"], all["more"]) = (1.into(), 1.into()));
    assert!(matches!(place.store().get(&name("a")).map(|_| ()), Err(StoreError::Format { .. })));
    fs::write(place.home.secrets(), "").expect("written");
    assert!(matches!(place.store().list(), Err(StoreError::Format { .. })));
}

#[test]
fn threads_that_set_at_once_lose_nothing() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let store = place.store();
            scope.spawn(move || store.set(&name(&format!("s{number}")), &secret("x")).expect("set"));
        }
    });
    assert_eq!(place.store().load().expect("opened").len(), 16);
}

#[test]
fn a_private_file_that_others_can_use_is_refused_with_the_chmod() {
    let place = Place::new();
    place.store().set(&name("a"), &secret(CANARY)).expect("set");
    let path = place.home.store_key();
    check_private(&path).expect("0600");
    set_mode(&path, 0o400);
    check_private(&path).expect("0400");
    for exposed in [0o640, 0o604, 0o620, 0o602, 0o644, 0o601] {
        set_mode(&path, exposed);
        let error = place.store().get(&name("a")).map(|_| ()).expect_err("exposed");
        assert_eq!(error.hint(), Some(format!("chmod 600 {}", path.display())), "{exposed:o}");
        assert_silent(&error);
    }
    set_mode(&path, 0o600);
    set_mode(place.home.dir(), 0o755);
    let error = place.home.check().expect_err("a home that others can use");
    assert_eq!(error.hint(), Some(format!("chmod 700 {}", place.home.dir().display())));
    assert!(place.home.create().is_err());
    place.store().get(&name("a")).expect("the file itself is still private");
    set_mode(place.home.dir(), 0o777);
    let error = place.store().get(&name("a")).map(|_| ()).expect_err("replaceable");
    assert!(matches!(error, StoreError::OpenFolder { .. }), "{error:?}");
    set_mode(place.home.dir(), 0o1777);
    place.store().get(&name("a")).expect("the sticky bit keeps others from replacing it");
}

#[test]
fn a_home_in_whose_place_everybody_can_put_another_is_refused_with_the_chmod() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path().canonicalize().expect("a path");
    let (above, beside) = (dir.join("above"), dir.join("beside"));
    for folder in [above.join("deeper"), beside.clone()] {
        fs::create_dir_all(folder).expect("folders");
    }
    let real = above.join("deeper/home");
    let link = beside.join("link");
    symlink(above.join("deeper"), &link).expect("a link");
    let named = Home::at(&link.join("home")).expect("a home");
    for open in [&above, &above.join("deeper"), &beside] {
        set_mode(open, 0o777);
        let refused = named.create().expect_err("before it is there");
        assert_eq!(refused.hint(), Some(format!("chmod o-w {}", open.display())));
        assert!(!real.exists(), "nothing is made");
        set_mode(open, 0o755);
    }
    assert!(named.create().expect("created"));
    for open in [&above, &above.join("deeper"), &beside] {
        for (mode, sound) in [(0o777, false), (0o1777, true), (0o775, true), (0o703, false), (0o755, true)] {
            set_mode(open, mode);
            let checked = named.check();
            assert_eq!(checked.is_ok(), sound, "{mode:o} {}", open.display());
            let hint = checked.err().and_then(|error| error.hint());
            assert_eq!(hint, (!sound).then(|| format!("chmod o-w {}", open.display())));
        }
    }
    let direct = Home::at(&real).expect("a home");
    set_mode(&beside, 0o777);
    direct.check().expect("what is not on the way is no matter");
}

#[test]
fn a_home_of_links_may_lie_in_a_volume_that_is_everybodys() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let dir = tempfile::tempdir().expect("a folder");
    let (volume, secret) = (dir.path().join("volume"), dir.path().join("secret"));
    for folder in [&volume, &secret] {
        fs::create_dir(folder).expect("a folder");
    }
    fs::write(secret.join("narrows.toml"), "").expect("written");
    // The mounts are this thread's own.
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    if unshare(CloneFlags::CLONE_NEWNS).is_err() || mount(none, "/", none, private, none).is_err() {
        println!("SKIP a volume: needs root");
        return;
    }
    // As the kubelet makes an emptyDir.
    mount(Some("volume"), &volume, Some("tmpfs"), MsFlags::empty(), Some("mode=0777")).expect("mounted");
    let home = Home::at(&volume.join("home")).expect("a home");
    assert!(matches!(home.create(), Err(StoreError::OpenFolder { .. })), "not a home of its own");
    narrows::store::mounted::link(&home, &secret).expect("linked");
    home.check().expect("a container's own");
    fs::remove_file(home.config()).expect("removed");
    fs::write(home.config(), "").expect("written");
    assert!(matches!(home.check(), Err(StoreError::OpenFolder { .. })), "a home of files");
    let folder = Home::at(&volume.join("folder/home")).expect("a home");
    fs::create_dir(volume.join("folder")).expect("a folder");
    narrows::store::mounted::link(&folder, &secret).expect("linked");
    set_mode(&volume.join("folder"), 0o777);
    assert!(matches!(folder.check(), Err(StoreError::OpenFolder { .. })), "no volume");
}

#[test]
fn a_link_is_held_to_the_rule_of_what_it_leads_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let (target, link) = (dir.path().join("key"), dir.path().join("link"));
    fs::write(&target, "x").expect("written");
    set_mode(&target, 0o600);
    symlink(&target, &link).expect("a link");
    check_private(&link).expect("ours and private");
    assert_eq!(&**read(&link).expect("read"), b"x");
    set_mode(&target, 0o644);
    assert!(matches!(check_private(&link), Err(StoreError::Exposed { .. })));
    assert!(matches!(read(&link), Err(StoreError::Exposed { .. })));
    set_mode(&target, 0o600);
    let open = dir.path().join("open");
    fs::create_dir(&open).expect("a folder");
    set_mode(&open, 0o777);
    fs::rename(&target, open.join("key")).expect("moved");
    fs::remove_file(&link).expect("removed");
    symlink(open.join("key"), &link).expect("a link");
    assert!(matches!(check_private(&link), Err(StoreError::OpenFolder { .. })));
    assert!(matches!(check_private(dir.path()), Err(StoreError::NotAFile { .. })));
    assert!(matches!(check_private(&dir.path().join("none")), Err(StoreError::Missing { .. })));
    if nix::unistd::geteuid().is_root() {
        let other = dir.path().join("other");
        fs::write(&other, "x").expect("written");
        set_mode(&other, 0o600);
        std::os::unix::fs::chown(&other, Some(12_345), None).expect("given away");
        assert!(matches!(check_private(&other), Err(StoreError::Owner { owner: 12_345, .. })));
    } else {
        println!("SKIP owner check: needs root");
    }
}

#[test]
fn key_files_are_one_line_and_never_overwritten() {
    let place = Place::new();
    for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
        let path = place.home.dir().join(format!("{algorithm:?}.key"));
        let key = keys::generate(algorithm).expect("a key");
        keys::write_private(&path, &key).expect("written");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_to_string(&path).expect("a file").lines().count(), 1);
        assert_eq!(keys::read_private(&path).expect("read").public(), key.public());
        assert!(matches!(keys::write_private(&path, &key), Err(StoreError::Exists { .. })));
        let public = path.with_extension("pub");
        keys::write_public(&public, key.public()).expect("written");
        assert_eq!((mode(&public), &keys::read_public(&public).expect("read")), (0o644, key.public()));
        assert!(matches!(keys::read_public(&path), Err(StoreError::Key { .. })));
        assert!(matches!(keys::read_private(&public), Err(StoreError::Exposed { .. })));
    }
    let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let path = place.home.dir().join("pem.key");
    fs::write(&path, &pem).expect("written");
    set_mode(&path, 0o600);
    assert_eq!(keys::read_private(&path).expect("PEM").public(), PrivateKey::parse(&pem).expect("PEM").public());
}

#[test]
fn root_and_ca_are_made_once_and_checked() {
    let place = Place::new();
    let home = &place.home;
    let (root, new) = keys::create_root(home).expect("a root");
    assert!(new);
    fs::remove_file(home.root_public()).expect("removed");
    assert_eq!(keys::create_root(home).expect("the same"), (root, false));
    assert_eq!(keys::read_public(&home.root_public()).expect("read"), root);

    assert!(Ca::create(home, &[], NOW).expect("a CA"));
    let before = fs::read(home.ca_certificate()).expect("a certificate");
    assert!(!Ca::create(home, &[], NOW).expect("kept"));
    assert_eq!(fs::read(home.ca_certificate()).expect("a certificate"), before);
    assert_eq!((mode(&home.ca_certificate()), mode(&home.ca_key())), (0o644, 0o600));
    let ca = Ca::load(home).expect("loaded");
    assert!(!format!("{ca:?}").contains("PRIVATE"));
    LeafCache::new(ca.certificate_pem(), ca.key_pem()).expect("it can sign");

    let key = fs::read(home.ca_key()).expect("a key");
    let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    for (what, content) in [("another's key", other.as_bytes()), ("no key", b"x"), ("not text", b"\xff")] {
        fs::write(home.ca_key(), content).expect("written");
        let error = Ca::load(home).map(|_| ()).expect_err(what);
        assert!(matches!(error, StoreError::Ca { .. }), "{what}: {error:?}");
        assert!(error.hint().expect("a hint").contains("capctl init"));
    }
    fs::write(home.ca_key(), &key).expect("written");
    set_mode(&home.ca_key(), 0o644);
    assert!(matches!(Ca::load(home).map(|_| ()), Err(StoreError::Exposed { .. })));
    fs::remove_file(home.ca_key()).expect("removed");
    assert!(matches!(Ca::load(home).map(|_| ()), Err(StoreError::Missing { .. })));
    assert!(matches!(Ca::create(home, &[], NOW), Err(StoreError::Ca { .. })));
}

#[tokio::test]
async fn a_change_is_seen_also_through_swapped_links() {
    const WAIT: Duration = Duration::from_secs(20);
    let dir = tempfile::tempdir().expect("a folder");
    let (file, folder) = (dir.path().join("file"), dir.path().join("folder"));
    let (old, new, link) = (dir.path().join("old"), dir.path().join("new"), dir.path().join("link"));
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("a.toml"), "1").expect("written");
    fs::write(&old, "same").expect("written");
    fs::write(&new, "same").expect("written");
    symlink(&old, &link).expect("a link");
    let watcher = Watcher::start(vec![file.clone(), folder.clone(), link.clone()]).expect("a thread");
    let mut generation = watcher.subscribe();
    let changes: [&dyn Fn(); 6] = [
        &|| fs::write(&file, "new").expect("written"),
        &|| fs::write(&file, "wen").expect("the same length"),
        &|| fs::write(folder.join("a.toml"), "12").expect("a file of a folder"),
        &|| fs::write(folder.join("b.toml"), "1").expect("a new file in a folder"),
        &|| {
            symlink(&new, dir.path().join("next")).expect("a link");
            fs::rename(dir.path().join("next"), &link).expect("swapped");
        },
        &|| fs::remove_file(&file).expect("removed"),
    ];
    for change in changes {
        generation.borrow_and_update();
        change();
        tokio::time::timeout(WAIT, generation.changed()).await.expect("seen in time").expect("watching");
    }
    drop(watcher);
    assert!(generation.changed().await.is_err());
}
