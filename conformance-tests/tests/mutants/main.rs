//! The suite held to its own promise: broken stores, each caught by the case named for the mistake, and honest but
//! awkward ones, which must pass.

mod awkward;
mod cancels;
mod deletes;
mod doubtful;
mod failing;
mod fences;
mod held;
mod lists;
mod over_memory;
mod races;
mod values;
mod weak;

use std::fmt::Write;
use std::path::Path;

use doubtful::doubtful_over;
use failing::faults_over;
use keystead_conformance::Report;
use over_memory::suite_over;

/// A mistake that spoils one random key in some hundreds, shows for a moment, or lets cases that
/// run side by side meet may be seen by any case, by chance.
const BY_CHANCE: &str = "";

/// A broken store: the case that is named for its mistake, and the others that the mistake may be
/// seen by (their ids, or the beginnings of them).
struct Mutant {
    name: &'static str,
    case: &'static str,
    also: &'static [&'static str],
    suite: fn() -> Report,
}

impl Mutant {
    /// Caught by the case named for it, and by none that is not about it.
    fn is_caught(&self) {
        let report = (self.suite)();
        let case = self.case;
        let failed = report.failed();

        assert!(failed.contains(&case), "{case} does not see it; seen by {failed:?}");
        let about = |id: &str| id == case || self.also.iter().any(|begin| id.starts_with(begin));
        let stray: Vec<&str> = failed.into_iter().filter(|id| !about(id)).collect();
        assert!(stray.is_empty(), "seen by cases that are not about it: {stray:?}\n{report}");
        for (id, text) in report.failures() {
            assert!(text.contains("rule: ") && text.contains("rerun: "), "{id} explains nothing: {text}");
        }
    }
}

macro_rules! mutants {
    ($list:ident, $suite:ident: $($test:ident: $mutant:ty => $case:literal $(, also [$($also:expr),+])?;)+) => {
        const $list: &[Mutant] = &[$(Mutant {
            name: stringify!($test),
            case: $case,
            also: &[$($($also),+)?],
            suite: $suite::<$mutant>,
        }),+];

        $(#[test]
        fn $test() {
            $list.iter().find(|mutant| mutant.name == stringify!($test)).expect("it is in the list").is_caught();
        })+
    };
}

mutants! { OVER_MEMORY, suite_over:
    missing_is_denied: values::MissingIsDenied => "get.missing_is_not_found",
        also ["batch.", "cancel.", "create.after_delete", "delete.", "erase.", "find.absent_is_none",
        "get_or_create.", "id.", "isolation.namespaces_do_not_meet", "put.idempotent_same_value", "race.",
        "two_handles.see_each_other"];
    missing_is_retryable: values::MissingIsRetryable => "get.missing_is_not_found",
        also ["batch.", "create.after_delete", "delete.", "erase.", "get_or_create.creates_once", "id.",
        "isolation.namespaces_do_not_meet", "put.idempotent_same_value", "race.", "two_handles.see_each_other"];
    trailing_newline_trimmed: values::TrailingNewlineTrimmed => "get.roundtrip_bytes", also [BY_CHANCE];
    whitespace_trimmed: values::WhitespaceTrimmed => "get.roundtrip_bytes", also [BY_CHANCE];
    cut_at_a_zero_byte: values::CutAtAZeroByte => "get.roundtrip_bytes", also [BY_CHANCE];
    trailing_zeros_dropped: values::TrailingZerosDropped => "get.roundtrip_bytes", also [BY_CHANCE];
    cut_at_2048_bytes: values::CutAt2048Bytes => "get.roundtrip_bytes",
        also ["create.", "delete.removes", "erase.receipt_is_true", "get_or_create.", "key.too_long_refused",
        "list.all_once", "put.grows_and_shrinks", "race.", "reopen.sees_everything"];
    read_as_utf8: values::ReadAsUtf8 => "get.roundtrip_bytes", also [BY_CHANCE];
    templates_expanded: values::TemplatesExpanded => "get.roundtrip_bytes",
        also ["reopen.sees_everything", "two_handles.see_each_other"];
    first_put_wins: values::FirstPutWins => "put.overwrites",
        also ["cancel.", "create.refuses_existing", "delete.removes", "erase.receipt_is_true",
        "get.roundtrip_bytes", "get_or_create.loser_gets_the_winners_key", "id.distinct_never_meet", "put.",
        "race.", "runtime.used_from_a_second_runtime", "two_handles.see_each_other"];
    long_tail_left_behind: values::LongTailLeftBehind => "put.grows_and_shrinks",
        also ["cancel.", "create.refuses_existing", "delete.removes", "erase.receipt_is_true",
        "get.roundtrip_bytes", "get_or_create.loser_gets_the_winners_key", "put.other_ids_untouched",
        "put.overwrites", "race.", "two_handles.see_each_other"];
    create_overwrites: values::CreateOverwrites => "create.refuses_existing",
        also ["batch.create_refuses_existing", "get.", "get_or_create.", "race.", "two_handles."];
    create_says_exists_and_overwrites: values::CreateSaysExistsAndOverwrites => "create.refuses_existing",
        also ["batch.create_refuses_existing", "get.", "get_or_create.", "race."];
    delete_does_nothing: deletes::DeleteDoesNothing => "delete.removes",
        also ["batch.delete_partial", "create.after_delete", "delete.", "erase.", "get_or_create.creates_once",
        "id.", "isolation.namespaces_do_not_meet", "leak.debug_key", "list.", "put.idempotent_same_value", "race.",
        "two_handles.see_each_other"];
    old_value_comes_back_after_delete: deletes::OldValueComesBackAfterDelete => "delete.removes",
        also ["batch.", "erase.", "id.", "list.", "put.", "race.", "two_handles."];
    delete_of_a_missing_key_is_ok: deletes::DeleteOfAMissingKeyIsOk => "delete.missing_is_not_found",
        also ["batch.delete_partial", "erase.receipt_is_true", "race."];
    deletes_by_prefix: deletes::DeletesByPrefix => "delete.other_ids_untouched", also ["id."];
    deletes_in_this_handle_only: deletes::DeletesInThisHandleOnly => "delete.survives_reopen",
        also ["batch.delete_partial", "create.after_delete", "delete.", "erase.", "get_or_create.creates_once",
        "id.roundtrip_and_list", "list.", "race.", "two_handles.see_each_other"];
    stale_after_delete: deletes::StaleAfterDelete => "delete.visible_to_other_handle",
        also ["batch.", "create.", "delete.", "erase.", "get_or_create.", "race.", "two_handles."];
    deletion_says_more_than_it_does: deletes::DeletionSaysMoreThanItDoes => "delete.grade_matches_capability",
        also ["erase.receipt_is_true"];
    erasing_twice_fails: deletes::ErasingTwiceFails => "erase.is_idempotent",
        also ["erase.receipt_is_true", "leak.debug_key"];
    receipt_always_says_it_existed: deletes::ReceiptAlwaysSaysItExisted => "erase.receipt_is_true";
    receipt_is_never_verified: deletes::ReceiptIsNeverVerified => "erase.receipt_is_true";
    loser_gets_its_candidate: values::LoserGetsItsCandidate => "get_or_create.loser_gets_the_winners_key",
        also ["get.roundtrip_bytes", "race."];
    batch_out_of_order: values::BatchOutOfOrder => "batch.get_order_and_duplicates",
        also ["get.roundtrip_bytes", "id.distinct_never_meet"];
    batch_drops_repeated_ids: values::BatchDropsRepeatedIds => "batch.get_order_and_duplicates";
    batch_stops_at_the_first_missing: values::BatchStopsAtTheFirstMissing => "batch.delete_partial";
    creates_many_over_existing: values::CreatesManyOverExisting => "batch.create_refuses_existing";
    creates_many_in_sorted_order: values::CreatesManyInSortedOrder => "batch.create_refuses_existing";
    creates_many_all_or_none: values::CreatesManyAllOrNone => "batch.create_refuses_existing";
    list_loses_a_page: lists::ListLosesAPage => "list.all_once";
    list_skips_an_id: lists::ListSkipsAnId => "list.all_once",
        also ["cancel.", "check.", "get_or_create.", "id.", "isolation.", "list.", "put."];
    list_repeats_an_id: lists::ListRepeatsAnId => "list.all_once", also ["list."];
    list_gives_ids_in_lower_case: lists::ListGivesIdsInLowerCase => "id.roundtrip_and_list";
    list_pages_by_number: lists::ListPagesByNumber => "list.stable_ids_during_writes", also ["list."];
    list_holds_a_lock: lists::ListHoldsALock => "list.open_stream_blocks_no_writer";
    list_gives_foreign_entries: lists::ListGivesForeignEntries => "list.foreign_entries_ignored";
    list_says_nothing: lists::ListSaysNothingInsteadOfUnsupported => "list.unsupported_is_said";
    check_fails: lists::CheckFails => "check.ok", also ["runtime.used_from_a_second_runtime"];
    nothing_is_shared_by_reopening: lists::NothingIsShared => "reopen.sees_everything",
        also ["batch.", "cancel.", "create.", "delete.", "erase.receipt_is_true", "get.roundtrip_bytes",
        "get_or_create.", "identity.", "list.", "put.", "race.", "runtime.used_from_a_second_runtime",
        "two_handles.see_each_other"];
    nothing_is_shared_between_handles: lists::NothingIsShared => "two_handles.see_each_other",
        also ["batch.", "cancel.", "create.", "delete.", "erase.receipt_is_true", "get.roundtrip_bytes",
        "get_or_create.", "identity.", "list.", "put.", "race.", "reopen.sees_everything",
        "runtime.used_from_a_second_runtime"];
    namespaces_meet: lists::NamespacesMeet => "isolation.namespaces_do_not_meet", also [BY_CHANCE];
    bound_to_its_runtime: lists::BoundToItsRuntime => "runtime.used_from_a_second_runtime";
    ids_case_folded: values::IdsCaseFolded => "id.distinct_never_meet",
        also ["delete.other_ids_untouched", "id.roundtrip_and_list", "put.other_ids_untouched"];
    ids_trimmed: values::IdsTrimmed => "id.distinct_never_meet",
        also ["delete.other_ids_untouched", "id.roundtrip_and_list", "put.other_ids_untouched"];
    ids_composed: values::IdsComposed => "id.distinct_never_meet", also ["id.roundtrip_and_list"];
    ids_percent_decoded: values::IdsPercentDecoded => "id.roundtrip_and_list", also ["id.distinct_never_meet"];
    ids_as_paths: values::IdsAsPaths => "id.distinct_never_meet", also ["id.roundtrip_and_list"];
    ids_cut_at_127_bytes: values::IdsCutAt127Bytes => "id.distinct_never_meet", also ["id.roundtrip_and_list"];
    selectors_split_off: values::SelectorsSplitOff => "id.roundtrip_and_list", also ["id.distinct_never_meet"];
    never_settles: weak::NeverSettles => "eventual.reads_settle", also ["erase.", "id.distinct_never_meet"];
    listing_never_settles: weak::ListingNeverSettles => "eventual.listing_settles";
    invisible_winner_loses: weak::InvisibleWinnerLoses => "eventual.invisible_winner_is_a_conflict", also ["race."];
    verifies_at_once: weak::VerifiesAtOnce => "eventual.verified_erasure_has_waited";
    pending_reads_as_not_found: weak::PendingReadsAsNotFound => "recoverable.calls_agree", also ["race."];
    put_revives: weak::PutRevives => "recoverable.calls_agree";
    pending_is_in_the_way: weak::PendingIsInTheWay => "recoverable.calls_agree",
        also ["create.after_delete", "race."];
    schedules_again: weak::SchedulesAgain => "recoverable.calls_agree", also ["delete.missing_is_not_found", "race."];
    pending_is_erased: weak::PendingIsErased => "recoverable.erase_admits_it";
    fence_is_only_claimed: fences::FenceIsOnlyClaimed => "fence.erased_stays_erased";
    fence_lets_overwrites_through: fences::FenceLetsOverwritesThrough => "fence.erased_stays_erased";
    create_looks_then_writes: races::CreateLooksThenWrites => "race.create_one_winner", also ["race."];
    get_or_create_looks_then_writes: races::GetOrCreateLooksThenWrites => "race.get_or_create_one_key",
        also ["race."];
    put_writes_in_two_halves: races::PutWritesInTwoHalves => "race.no_torn_value", also ["race."];
    delete_looks_then_deletes: races::DeleteLooksThenDeletes => "race.delete_at_least_one_ok", also ["race."];
    reads_lag_a_little: races::ReadsLagALittle => "race.linearizable", also [BY_CHANCE];
    writes_that_meet_are_lost: races::WritesThatMeetAreLost => "race.linearizable", also ["cancel.", "race."];
    put_clears_first: cancels::PutClearsFirst => "cancel.put", also ["race."];
    lock_is_not_given_back: cancels::LockIsNotGivenBack => "cancel.put", also ["cancel.", "race."];
    delete_leaves_a_mark: cancels::DeleteLeavesAMark => "cancel.delete", also ["cancel.", "race."];
    get_or_create_reserves_first: cancels::GetOrCreateReservesFirst => "cancel.get_or_create", also ["race."];
    get_leaves_a_load_mark: held::GetLeavesALoadMark => "cancel.get", also ["cancel."];
    erase_leaves_a_mark: held::EraseLeavesAMark => "cancel.erase";
    batch_leaves_marks: held::BatchLeavesMarks => "cancel.batch";
    permits_are_used_up: held::PermitsAreUsedUp => "cancel.many", also ["cancel.put"];
    last_page_comes_again: held::LastPageComesAgain => "list.all_once",
        also ["cancel.", "check.ok", "get_or_create.creates_once", "id.roundtrip_and_list",
        "isolation.namespaces_do_not_meet", "leak.debug_key", "list.", "put.idempotent_same_value"];
    no_ids_means_all: held::NoIdsMeansAll => "batch.delete_partial";
    overwritten_is_absent_for_a_moment: weak::OverwrittenIsAbsentForAMoment => "eventual.reads_settle", also [BY_CHANCE];
    key_in_debug: lists::KeyInDebug => "leak.debug_store";
    id_in_the_cause: lists::IdInTheCause => "leak.error_chain";
    key_in_the_cause: lists::KeyInTheCause => "leak.error_chain";
    key_in_a_trace: cancels::KeyInATrace => "leak.tracing";
    id_in_a_trace_of_another_thread: cancels::IdInATraceOfAnotherThread => "leak.tracing";
    key_in_a_panic: cancels::KeyInAPanic => "leak.panic",
        also ["batch.create_refuses_existing", "cancel.many", "create.", "get.", "get_or_create.", "leak.", "race.",
        "two_handles."];
}

macro_rules! passes {
    ($($test:ident: $store:ty, ignoring [$($ignored:expr),+];)+) => {
        $(#[test]
        fn $test() {
            passes(&suite_over::<$store>(), &[&[$($ignored),+, "fault."], DOUBT].concat());
        })+
    };
}

/// No case fails, and those that are ignored are these (their ids, or the beginnings of them).
fn passes(report: &Report, ignored: &[&str]) {
    assert!(report.failed().is_empty(), "{report}");
    let actual: Vec<&str> = report.ignored().iter().map(|(case, _)| *case).collect();
    let stray: Vec<_> = actual.iter().filter(|case| !ignored.iter().any(|begin| case.starts_with(begin))).collect();
    let unused: Vec<_> = ignored.iter().filter(|begin| !actual.iter().any(|case| case.starts_with(**begin))).collect();
    assert!(stray.is_empty() && unused.is_empty(), "ignored besides: {stray:?}; not ignored: {unused:?}");
}

const FOREIGN: &str = "list.foreign_entries_ignored";
const FENCE: &str = "fence.";
const UNSUPPORTED: &str = "list.unsupported_is_said";

/// The cases about engines whose answers invite a false success.
const DOUBT: &[&str] = &[
    "erase.never_ok_while_the_key_stands",
    "erase.of_a_refused_delete_is_an_error",
    "create.after_forced_delete",
    "get.entry_without_a_value",
];

passes! {
    a_slow_store_passes: awkward::Slow, ignoring [FOREIGN, UNSUPPORTED, "eventual.", "recoverable.", FENCE];
    a_store_that_answers_after_yielding_passes: awkward::Yielding,
        ignoring [FOREIGN, UNSUPPORTED, "eventual.", "recoverable.", FENCE];
    a_lagging_store_passes: awkward::Lagging, ignoring [FOREIGN, UNSUPPORTED, "recoverable.", FENCE];
    a_recoverable_store_passes: awkward::Recoverable, ignoring [FOREIGN, UNSUPPORTED, "eventual.", FENCE];
    a_store_that_cannot_list_passes: awkward::Listless, ignoring [
        "list.empty",
        "list.all_once",
        "list.deleted_absent",
        FOREIGN,
        "list.dropped_midway",
        "list.open_stream_blocks_no_writer",
        "list.stable_ids_during_writes",
        "eventual.",
        "recoverable.",
        FENCE
    ];
}

mutants! { OVER_A_FAILING_ENGINE, faults_over:
    pause_is_forgotten: failing::PauseIsForgotten => "fault.throttled";
    throttling_is_final: failing::ThrottlingIsFinal => "fault.throttled", also ["fault.storm"];
    denied_is_not_found: failing::DeniedIsNotFound => "fault.denied";
    denial_quotes_the_name: failing::DenialQuotesTheName => "fault.denied";
    expiry_is_retried: failing::ExpiryIsRetried => "fault.expired_credentials";
    disabled_key_is_damage: failing::DisabledKeyIsDamage => "fault.key_unavailable";
    server_error_is_absence: failing::ServerErrorIsAbsence => "fault.5xx";
    garbage_is_shown: failing::GarbageIsShown => "fault.garbage_200";
    truncation_is_no_effect: failing::TruncationIsNoEffect => "fault.truncated_body";
    reset_is_final: failing::ResetIsFinal => "fault.reset_before_send";
    believes_the_second_answer: failing::BelievesTheSecondAnswer => "fault.reset_after_apply";
    waits_for_ever: failing::WaitsForEver => "fault.silent_server";
    silence_is_no_effect: failing::SilenceIsNoEffect => "fault.silent_server";
}

#[test]
fn an_honest_store_over_a_failing_engine_passes() {
    let ignored: &[&str] = &[FOREIGN, UNSUPPORTED, "eventual.", "recoverable.", FENCE];
    passes(&failing::suite_over::<failing::Honest>(&[]), &[ignored, DOUBT].concat());
}

mutants! { OVER_A_DOUBTFUL_ENGINE, doubtful_over:
    erases_by_one_stale_answer: doubtful::ErasesByOneStaleAnswer => "erase.never_ok_while_the_key_stands";
    seen_key_never_existed: doubtful::SeenKeyNeverExisted => "erase.never_ok_while_the_key_stands";
    refused_delete_is_erased: doubtful::RefusedDeleteIsErased => "erase.of_a_refused_delete_is_an_error";
    held_name_is_pending: doubtful::HeldNameIsPending => "create.after_forced_delete";
    held_name_is_not_waited_for: doubtful::HeldNameIsNotWaitedFor => "create.after_forced_delete";
    valueless_is_not_found: doubtful::ValuelessIsNotFound => "get.entry_without_a_value";
    identity_is_shared: doubtful::IdentityIsShared => "identity.distinct_and_stable";
    identity_changes_by_handle: doubtful::IdentityChangesByHandle => "identity.distinct_and_stable";
}

#[test]
fn an_honest_store_over_a_doubtful_engine_passes() {
    passes(&doubtful_over::<doubtful::Honest>(), &[FOREIGN, UNSUPPORTED, "recoverable.", FENCE, "fault."]);
}

#[test]
fn a_failure_names_the_injected_fault_and_says_whether_it_is_lifted() {
    let text_of = |report: &Report, case: &str| {
        let failure = report.failures().into_iter().find(|(id, _)| *id == case).map(|(_, text)| text.to_owned());
        failure.expect("the case sees the mistake")
    };
    let text = text_of(&faults_over::<failing::DeniedIsNotFound>(), "fault.denied");
    assert!(text.contains("   fault: Denied for the operation get, lifted before this check\n"), "{text}");
    let text = text_of(&faults_over::<failing::WaitsForEver>(), "fault.silent_server");
    assert!(text.contains("   fault: Silent for the operation get, not lifted yet\n"), "{text}");
}

/// Each mutant, its case, and what the case says, which is written when the table is and may count
/// differently each time.
#[test]
fn the_table_of_mutants_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("MUTANTS.md");
    let mutants = || OVER_MEMORY.iter().chain(OVER_A_FAILING_ENGINE).chain(OVER_A_DOUBTFUL_ENGINE);
    if std::env::var_os("KEYSTEAD_BLESS").is_some() {
        let mut text = String::from(
            "# The mutants\n\nBroken stores that the suite must catch, each by the case that is about its mistake. \
             tests/mutants/main.rs lists the other cases that may notice the mistake, too.\nGenerated: \
             `KEYSTEAD_BLESS=1 cargo test -p keystead-conformance --test mutants table` writes it again.\n\n\
             | mutant | caught by | failure |\n|---|---|---|\n",
        );
        for mutant in mutants() {
            let report = (mutant.suite)();
            let said = report.failures().into_iter().find(|(id, _)| *id == mutant.case).map_or("", |(_, text)| text);
            let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.starts_with("rule:")).collect();
            let said = lines
                .iter()
                .take_while(|line| !line.starts_with("rerun:"))
                .take(3)
                .copied()
                .collect::<Vec<_>>()
                .join("; ");
            let said = said.replace('|', "\\|");
            writeln!(text, "| `{}` | `{}` | {said} |", mutant.name, mutant.case)
                .expect("writing to a string does not fail");
        }
        std::fs::write(&path, text).expect("MUTANTS.md can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let rows: Vec<String> = mutants().map(|mutant| format!("| `{}` | `{}` |", mutant.name, mutant.case)).collect();
    let listed: Vec<&str> = written.lines().filter(|line| line.starts_with("| `")).collect();
    let current =
        listed.len() == rows.len() && listed.iter().zip(&rows).all(|(line, row)| line.starts_with(row.as_str()));
    assert!(current, "MUTANTS.md is not current: its first lines say how to write it again");
}
