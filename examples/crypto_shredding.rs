//! Crypto-shredding from beginning to end: the data of two users is encrypted under a key for each,
//! then one user is erased.
//!
//! `cargo run -p keystead-demo --example crypto_shredding [FOLDER]`, where the folder is
//! `keystead-demo` by default. Run it twice: the second run finds the store and the data of the
//! first.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use futures_executor::block_on;
use keystead::file::{FileStore, RootSecret};
use keystead::{BoxError, KeyId, KeyStore, KeyStoreExt, SecretKey};

type Result<T> = std::result::Result<T, BoxError>;

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";

fn main() -> ExitCode {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or("keystead-demo".into()));
    match block_on(run(&Demo { folder })) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            show(&*e);
            ExitCode::FAILURE
        }
    }
}

/// Prints an error with its causes. Each level says one thing: what failed, then why and what to
/// do.
#[expect(clippy::print_stderr, reason = "a program for a terminal")]
fn show(e: &(dyn Error + 'static)) {
    eprintln!("error: {e}");
    let mut cause = e.source();
    while let Some(e) = cause {
        eprintln!("  because {e}");
        cause = e.source();
    }
}

#[expect(clippy::print_stdout, reason = "a program for a terminal")]
async fn run(demo: &Demo) -> Result<()> {
    println!("1. The store is {}.", demo.store_path().display());
    println!("   The secret that opens it is {}; in production it belongs elsewhere.", demo.root_path().display());
    let store = demo.open().await?;
    for user in [ALICE, BOB] {
        if demo.data_path(user).exists() {
            println!("   From an earlier run: {}", demo.describe(&store, user).await?);
        }
    }

    println!("2. Each user gets a key, and a line of personal data is encrypted under it.");
    for (user, line) in [(ALICE, "Alice lives at 12 Elm Street"), (BOB, "Bob is allergic to penicillin")] {
        let key = store.get_or_create_key(&KeyId::new(user)?).await?;
        fs::write(demo.data_path(user), encrypt(&key, user, line)?)?;
        println!("   {user}: \"{line}\" is now {} unreadable bytes", fs::metadata(demo.data_path(user))?.len());
    }

    println!("3. The store is closed and opened again. Both lines can be read.");
    store.close().await?;
    let store = demo.open().await?;
    for user in [ALICE, BOB] {
        println!("   {}", demo.describe(&store, user).await?);
    }

    println!("4. Bob asks to be forgotten: his key is erased, and his data is not touched.");
    let erasure = store.erase_key(&KeyId::new(BOB)?).await?;
    println!(
        "   there was a key: {}, verified to be gone: {}, its bytes beyond recovery: {:?}",
        erasure.existed, erasure.verified, erasure.finality
    );

    println!("5. The data that can still be read:");
    for user in [ALICE, BOB] {
        println!("   {}", demo.describe(&store, user).await?);
    }
    store.close().await?;
    println!("No copy of Bob's data can be decrypted. Run this again: Alice's data can still be read.");
    Ok(())
}

struct Demo {
    folder: PathBuf,
}

impl Demo {
    fn store_path(&self) -> PathBuf {
        self.folder.join("keys.db")
    }

    fn root_path(&self) -> PathBuf {
        self.folder.join("root.secret")
    }

    fn data_path(&self, user: &str) -> PathBuf {
        self.folder.join(format!("{user}.encrypted"))
    }

    async fn open(&self) -> Result<FileStore> {
        create_private_folder(&self.folder)?;
        Ok(FileStore::open_or_create(self.store_path(), self.root_secret()?).await?)
    }

    /// Reads the root secret. If there is none, creates one and syncs it to disk before anything
    /// depends on it.
    fn root_secret(&self) -> Result<RootSecret> {
        if self.root_path().exists() {
            return Ok(RootSecret::parse(&fs::read(self.root_path())?)?);
        }
        let root = RootSecret::generate();
        let digits = root.to_hex().ok_or("a generated root secret has hexadecimal digits")?;
        let mut file = private_file(&self.root_path())?;
        file.write_all(digits.as_bytes())?;
        file.sync_all()?;
        Ok(root)
    }

    /// Describes how much of a user's data can be decrypted with the key that is in the store.
    async fn describe(&self, store: &FileStore, user: &str) -> Result<String> {
        let encrypted = fs::read(self.data_path(user))?;
        Ok(match store.find_key(&KeyId::new(user)?).await? {
            Some(key) => match decrypt(&key, user, &encrypted) {
                Some(line) => format!("{user}: \"{line}\""),
                None => format!("{user}: encrypted under a key that no longer exists, so the data cannot be decrypted"),
            },
            None => format!("{user}: no key, so nobody can decrypt the data"),
        })
    }
}

/// Encrypts with AES-256-GCM, with a random nonce in front. The user's id is the associated data.
fn encrypt(key: &SecretKey, user: &str, line: &str) -> Result<Vec<u8>> {
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key.expose_secret())?;
    let mut data = line.as_bytes().to_vec();
    let nonce = cipher.seal_in_place_append_tag(Aad::from(user), &mut data)?;
    Ok([nonce.as_ref().as_slice(), &data].concat())
}

fn decrypt(key: &SecretKey, user: &str, encrypted: &[u8]) -> Option<String> {
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key.expose_secret()).ok()?;
    let (nonce, data) = encrypted.split_first_chunk::<NONCE_LEN>()?;
    let mut data = data.to_vec();
    let line = cipher.open_in_place(Nonce::from(nonce), Aad::from(user), &mut data).ok()?;
    Some(std::str::from_utf8(line).ok()?.to_owned())
}

fn create_private_folder(folder: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    Ok(builder.create(folder)?)
}

fn private_file(path: &Path) -> Result<fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    Ok(options.open(path)?)
}
