//! Tests that take several processes: sharing a store, dying in the middle, and what is left in
//! the files, which nobody may read from within a process that has the store open.
//!
//! The program is its own worker: `worker ROLE ARGS` runs one of the roles.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

mod child;
mod descriptors;
mod fixture;
mod forked;
mod full_disk;
mod idle;
mod killed;
mod lineage;
mod log;
mod memory;
mod names;
mod remnants;
mod restored;
mod rotated;
mod shared;
mod stopped;

use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use libtest_mimic::{Arguments, Trial};

/// Held for writing by a test that keeps all processors busy: others wait half a second for a
/// reader, which must get to read in that time.
static CROWD: RwLock<()> = RwLock::new(());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, worker, role, rest @ ..] = arguments.as_slice()
        && worker == "worker"
    {
        match role.as_str() {
            "back_up_and_write" => fixture::back_up_and_write(rest),
            "begin_creation" => shared::begin_creation(rest),
            "churn" => killed::churn(rest),
            "delete_eventually" => idle::delete_eventually(rest),
            "fill_disk" => full_disk::fill_disk(rest),
            "first_open" => shared::first_open(rest),
            "fork_with_store" => forked::fork_with_store(rest),
            "grow" => lineage::grow(rest),
            "hammer" => shared::hammer(rest),
            "history" => remnants::history(rest),
            "hold_locks" => stopped::hold_locks(rest),
            "hold_open" => restored::hold_open(rest),
            "leave_open" => shared::leave_open(rest),
            "open_and_tell" => memory::open_and_tell(rest),
            "read_on" => log::read_on(rest),
            "open_on" => restored::open_on(rest),
            "read_all_at_once" => rotated::read_all_at_once(rest),
            "read_slowly" => remnants::read_slowly(rest),
            "restore_if_free" => restored::restore_if_free(rest),
            "restore_once" => restored::restore_once(rest),
            "run_out_of_descriptors" => descriptors::run_out(rest),
            "say_ready" => full_disk::say_ready(rest),
            "tell_opening" => names::tell_opening(rest),
            "upgrade_and_write" => lineage::upgrade_and_write(rest),
            "write_before_readers" => lineage::write_before_readers(rest),
            "write_beside_stopped" => stopped::write_beside_stopped(rest),
            "write_logs" => lineage::write_logs(rest),
            _ => panic!("there is no role {role}"),
        }
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, fn()); 31] = [
        ("four_processes_hammer_one_store_and_lose_nothing", shared::four_processes_lose_nothing),
        ("twenty_four_processes_create_one_store_at_once", shared::twenty_four_first_opens),
        ("a_checkpoint_that_was_cut_off_is_no_damage", shared::checkpoint_cut_off),
        ("a_creation_that_was_cut_off_is_undone_and_begun_again", shared::creation_cut_off),
        ("files_are_for_the_owner_only_under_any_umask", shared::modes_under_umask_000),
        ("no_dead_record_or_row_key_is_left_in_any_file", remnants::random_histories),
        ("two_processes_leave_nothing_of_each_others_records", remnants::two_processes),
        ("a_long_reader_makes_a_deletion_eventual_until_it_has_gone", remnants::long_reader),
        ("no_descriptors_left_is_told_and_costs_nothing", descriptors::none_left),
        ("argon2_out_of_bounds_is_refused_before_any_memory_is_taken", memory::refused_before_it_is_taken),
        ("killed_processes_lose_and_leave_nothing", killed::at_random_moments),
        ("a_restore_that_was_interrupted_at_any_step_is_ended_by_the_next", restored::interrupted_at_each_step),
        ("killed_restores_leave_one_store_or_the_other", restored::killed_at_random_moments),
        ("a_store_that_is_opened_while_it_is_restored_is_whole", restored::opened_while_restored),
        ("restores_at_once_lose_nothing", restored::restores_at_once),
        ("a_store_that_another_process_has_open_is_not_replaced", restored::beside_an_open_store),
        ("the_journal_of_a_creation_cut_off_does_not_undo_a_restore", restored::over_a_creation_cut_off),
        ("a_backup_copied_over_a_dead_store_is_refused_beside_its_log", lineage::backup_copied_over_a_dead_store),
        ("a_restore_keeps_a_foreign_log", lineage::restored_over_a_foreign_log),
        ("a_raw_copy_is_refused_beside_a_later_log", lineage::raw_copies),
        ("a_log_that_was_moved_into_the_file_in_parts_is_accepted", lineage::logs_moved_in_parts),
        ("long_logs_of_killed_processes_are_accepted", lineage::long_logs_of_killed_processes),
        ("a_forked_process_gets_errors_and_disturbs_nothing", forked::a_child_disturbs_nothing),
        ("a_file_of_two_names_is_refused", names::hard_links),
        ("a_stopped_process_that_holds_the_lock_stops_no_other", stopped::others_go_on),
        ("a_log_is_read_although_a_stopped_process_holds_the_lock", stopped::a_log_is_read),
        ("an_idle_store_empties_its_log", idle::the_log_is_emptied),
        ("the_next_process_to_open_a_store_scrubs_for_the_dead", idle::the_next_to_open_scrubs),
        ("puts_do_not_wait_for_a_reader_while_a_scrub_is_due", idle::puts_do_not_wait_for_readers),
        ("a_changed_passphrase_is_stretched_once_for_all_readers", rotated::one_stretching_at_a_time),
        ("an_upgrade_that_was_cut_off_is_done_again", lineage::upgrades_cut_off),
    ];
    let trial = |(name, test): (&str, fn())| {
        Trial::test(name, move || {
            let _beside_others = CROWD.read().unwrap_or_else(PoisonError::into_inner);
            test();
            Ok(())
        })
    };
    let mut trials: Vec<Trial> = tests.map(trial).into();
    trials.push(full_disk::trial());
    trials.push(names::mounted_file());
    trials.push(Trial::test("the_log_stays_short_under_readers_that_never_pause", || {
        let _alone = CROWD.write().unwrap_or_else(PoisonError::into_inner);
        log::stays_short();
        Ok(())
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
