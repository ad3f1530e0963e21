//! Ids in names: the name of an id gives back the id, and no two ids have the same name.

use keystead::{KeyId, NameTemplate};

use crate::Seeds;

/// Maps two ids to names and back. The input has three lines: a template, for which
/// `/app/user-keys/%s` stands in if it is not a valid one, and two ids. The last one may contain
/// line breaks.
pub fn name(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.splitn(3, '\n');
    let [template, one, two] = [(); 3].map(|()| lines.next().unwrap_or_default());
    let template = template_of(template);
    assert_canonical(&template, two);
    let (Ok(one), Ok(two)) = (KeyId::new(one), KeyId::new(two)) else { return };
    for id in [&one, &two] {
        let name = template.name(id);
        assert!(name.is_ascii() && name.len() <= template.max_name_len());
        assert!(template.id(&name).as_ref() == Some(id), "an id did not come back from its name");
        assert_canonical(&template, id.as_str());
    }
    assert_eq!(template.name(&one) == template.name(&two), one == two);
}

fn template_of(text: &str) -> NameTemplate {
    match NameTemplate::new(text) {
        Ok(template) => {
            assert_eq!(template.to_string(), text);
            template
        }
        Err(_) => NameTemplate::new("/app/user-keys/%s").expect("a template"),
    }
}

/// Checks that a name which gives an id is the name of that id.
fn assert_canonical(template: &NameTemplate, segment: &str) {
    for name in [segment.to_owned(), [template.prefix(), segment, template.suffix()].concat()] {
        if let Some(id) = template.id(&name) {
            assert_eq!(template.name(&id), name);
        }
    }
}

pub(crate) fn seeds() -> Seeds {
    vec![
        ("plain_and_escaped", b"/app/user-keys/%s\nalice\nalice@example.com".to_vec()),
        ("escapes_of_escapes", b"app/%s.key\n--a\n---2D-2Da".to_vec()),
        ("beyond_ascii", "/app/%s\n\u{e9}\ne\u{301}".as_bytes().to_vec()),
        ("no_template", b"%s\n../x\na/../b".to_vec()),
    ]
}
