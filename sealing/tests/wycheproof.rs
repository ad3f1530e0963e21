//! Project Wycheproof's vectors for Cobblestone-256.
//!
//! They are not copied into this project: set `KEYSTEAD_WYCHEPROOF` to a folder that holds
//! `c2sp_chunked_encryption_aes_256_gcm_test.json`, from <https://github.com/C2SP/wycheproof>, with the field `ct`
//! zlib-compressed. Without it the test shows as ignored.

#![allow(clippy::print_stdout, reason = "a test program")]

use std::path::Path;
use std::process::ExitCode;

use aws_lc_rs::digest::{SHA512, digest};
use keystead_sealing::cobblestone;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde::Deserialize;

const FILE: &str = "c2sp_chunked_encryption_aes_256_gcm_test.json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vectors {
    number_of_tests: usize,
    test_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    tc_id: u32,
    comment: String,
    key: String,
    ctx: String,
    ct: String,
    #[serde(default)]
    msg_length: usize,
    #[serde(default)]
    msg_sha512: String,
    result: String,
}

fn main() -> ExitCode {
    let test = Trial::ignorable_test("every_wycheproof_vector_is_answered_right", || {
        match std::env::var_os("KEYSTEAD_WYCHEPROOF") {
            Some(folder) => every_vector_is_answered_right(Path::new(&folder)),
            None => Ok(Completion::ignored_with("KEYSTEAD_WYCHEPROOF names no folder with the vectors")),
        }
    });
    libtest_mimic::run(&Arguments::from_args(), vec![test]).exit_code()
}

fn every_vector_is_answered_right(folder: &Path) -> Result<Completion, Failed> {
    let vectors: Vectors = serde_json::from_str(&std::fs::read_to_string(folder.join(FILE))?)?;
    let tests: Vec<Vector> = vectors.test_groups.into_iter().flat_map(|group| group.tests).collect();
    let wrong: Vec<String> = tests.iter().filter(|test| !is_answered_right(test)).map(name).collect();
    println!("{} of {} vectors answered right", tests.len() - wrong.len(), vectors.number_of_tests);
    if tests.len() != vectors.number_of_tests || !wrong.is_empty() {
        return Err(format!("{} tests read, answered wrongly: {wrong:?}", tests.len()).into());
    }
    Ok(Completion::Completed)
}

fn is_answered_right(test: &Vector) -> bool {
    let bytes = |digits: &str| hex::decode(digits).expect("a field in hexadecimal");
    let sealed = miniz_oxide::inflate::decompress_to_vec_zlib(&bytes(&test.ct)).expect("a zlib stream");
    // A key of another length cannot be given to the function at all.
    let key = <[u8; 32]>::try_from(bytes(&test.key));
    let opened = key.ok().and_then(|key| cobblestone::open(&key, &bytes(&test.ctx), &sealed).ok());
    match (test.result.as_str(), opened) {
        ("valid", Some(message)) => {
            message.len() == test.msg_length && digest(&SHA512, &message).as_ref() == bytes(&test.msg_sha512)
        }
        ("invalid", opened) => opened.is_none(),
        _ => false,
    }
}

fn name(test: &Vector) -> String {
    format!("{} ({})", test.tc_id, test.comment)
}
