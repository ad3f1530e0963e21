//! The cases, a room a topic.

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
        get::room(),
        put::room(),
        create::room(),
        delete::room(),
        erase::room(),
        doubt::room(),
        get_or_create::room(),
        batch::room(),
        list::room(),
        handles::room(),
        identity::room(),
        ids::room(),
        eventual::room(),
        recoverable::room(),
        fence::room(),
        race::room(),
        cancel::room(),
        leak::room(),
        fault::room(),
    ]
}
