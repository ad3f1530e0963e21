//! The cases, in one file per subject.

mod batch;
mod cancel;
mod create;
mod delete;
mod doubt;
mod erase;
mod eventual;
mod fault;
mod fence;
mod get;
mod get_or_create;
mod handles;
mod identity;
mod ids;
mod leak;
mod list;
mod put;
mod race;
mod recoverable;

use crate::case::Case;

pub(crate) fn all() -> Vec<Vec<Case>> {
    vec![
        get::case_list(),
        put::case_list(),
        create::case_list(),
        delete::case_list(),
        erase::case_list(),
        doubt::case_list(),
        get_or_create::case_list(),
        batch::case_list(),
        list::case_list(),
        handles::case_list(),
        identity::case_list(),
        ids::case_list(),
        eventual::case_list(),
        recoverable::case_list(),
        fence::case_list(),
        race::case_list(),
        cancel::case_list(),
        leak::case_list(),
        fault::case_list(),
    ]
}
