//! What only several processes can show: sharing a store, dying in the middle, and what is left in the files, which
//! nobody may read from within a process that has the store open.
//!
//! The program is its own worker: `worker ROLE ARGS` runs one of the roles.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

mod child;
mod killed;
mod remnants;
mod shared;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, worker, role, rest @ ..] = arguments.as_slice()
        && worker == "worker"
    {
        match role.as_str() {
            "begin_creation" => shared::begin_creation(rest),
            "churn" => killed::churn(rest),
            "first_open" => shared::first_open(rest),
            "hammer" => shared::hammer(rest),
            "history" => remnants::history(rest),
            "leave_open" => shared::leave_open(rest),
            "read_slowly" => remnants::read_slowly(rest),
            _ => panic!("there is no role {role}"),
        }
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, fn()); 9] = [
        ("four_processes_hammer_one_store_and_lose_nothing", shared::four_processes_lose_nothing),
        ("twenty_four_processes_create_one_store_at_once", shared::twenty_four_first_opens),
        ("a_checkpoint_that_was_cut_off_is_no_damage", shared::checkpoint_cut_off),
        ("a_creation_that_was_cut_off_is_undone_and_begun_again", shared::creation_cut_off),
        ("files_are_for_the_owner_only_under_any_umask", shared::modes_under_umask_000),
        ("no_dead_record_or_row_key_is_left_in_any_file", remnants::random_histories),
        ("two_processes_leave_nothing_of_each_others_records", remnants::two_processes),
        ("a_long_reader_makes_a_deletion_eventual_until_it_has_gone", remnants::long_reader),
        ("killed_processes_lose_and_leave_nothing", killed::at_random_moments),
    ];
    let trial = |(name, test): (&str, fn())| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    libtest_mimic::run(&Arguments::from_args(), tests.map(trial).into()).exit_code()
}
