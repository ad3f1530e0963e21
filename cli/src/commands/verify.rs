//! `verify`: whether every record of a file store is whole.

use keystead::file::VerifyReport;
use serde_json::json;

use crate::encoding::hex;
use crate::exit::{Code, Outcome};
use crate::session::Session;
use crate::{output, stores};

pub(crate) async fn run(session: &Session) -> Outcome {
    let store = stores::open_file(session).await?;
    let report = store.verify(output::progress(session.output.json)).await?;
    let rows: Vec<String> = report.damaged.iter().map(|row| hex(row)).collect();
    let value = json!({
        "intact": report.intact,
        "damaged_rows": rows,
        "unreadable": report.unreadable,
        "in_rotation": report.in_rotation,
    });
    session.output.result(text(&report, &rows), value)?;
    if report.in_rotation {
        output::note("a rotation has begun and not ended: if none is running now, end it with rotate --resume");
    }
    if report.is_intact() {
        return Ok(Code::Done);
    }
    output::note("restore the store from a backup, or give up the damaged keys: put or delete their ids");
    Ok(Code::Damaged)
}

fn text(report: &VerifyReport, rows: &[String]) -> String {
    let VerifyReport { intact, unreadable, .. } = report;
    let mut text =
        format!("records: {intact} intact, {} damaged; stretches that cannot be read: {unreadable}", rows.len());
    for row in rows {
        text.push_str(&format!("\ndamaged row {row}"));
    }
    text
}
