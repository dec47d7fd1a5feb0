//! As much of Markdown as the project's pages are written in, as text for man pages.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// What stands below a heading of a page, up to the next heading of any level.
pub fn section<'a>(page: &'a str, heading: &str) -> Option<&'a str> {
    let (_, below) = page.split_once(&format!("\n{heading}\n"))?;
    Some(below.split_once("\n#").map_or(below, |(section, _)| section))
}

/// Adds text to a page: paragraphs, lists, and tables, each of whose rows is what its first cell says and what is to be known of it. A
/// third cell stands in the middle, and is what holds otherwise.
pub fn add(roff: &mut Roff, text: &str) {
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        if block.starts_with('|') {
            // The first two lines are the table's head.
            block.lines().skip(2).for_each(|row| add_row(roff, &cells(row)));
        } else if block.starts_with("- ") {
            for item in format!("\n{block}").split("\n- ").skip(1) {
                roff.control("IP", ["\\(bu", "2"]).text(inlines(&item.replace('\n', " ")));
            }
        } else {
            roff.control("PP", []).text(inlines(&block.replace('\n', " ")));
        }
    }
}

fn add_row(roff: &mut Roff, cells: &[String]) {
    let (name, usual, what) = match cells {
        [name, what] => (name, None, what),
        [name, usual, what] => (name, Some(usual), what),
        _ => panic!("a table has two columns, or three, and not {cells:?}"),
    };
    // It has a line of its own, in bold as far as somebody types it, and so has all of it where nobody does.
    let name = if name.contains('`') { inlines(name) } else { vec![bold(name)] };
    roff.control("TP", []).text(name).text(inlines(what));
    if let Some(usual) = usual {
        roff.control("br", []).text(inlines(&format!("Default: {usual}.")));
    }
}

/// The cells of a row, in which `\|` is no border.
fn cells(row: &str) -> Vec<String> {
    let hidden = row.trim().trim_matches('|').replace("\\|", "\0");
    hidden.split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// A line: what is typed in bold, as man pages have it, and of links their words alone.
fn inlines(text: &str) -> Vec<Inline> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        let (before, mark) = rest.split_at(at);
        let (token, close) = match mark {
            bold if bold.starts_with("**") => ("**", "**"),
            link if link.starts_with('[') => ("[", "]("),
            other => (&other[..1], &other[..1]),
        };
        let inside = mark[token.len()..].split_once(close).filter(|(inside, _)| !inside.is_empty());
        found.push(roman(before));
        // A mark that nothing ends is itself.
        let Some((inside, after)) = inside else {
            found.push(roman(token));
            rest = &mark[token.len()..];
            continue;
        };
        rest = after;
        match token {
            "`" | "**" => found.push(bold(inside)),
            "*" => found.push(italic(inside)),
            _ => {
                found.extend(inlines(inside));
                rest = after.split_once(')').map_or("", |(_, after)| after);
            }
        }
    }
    found.push(roman(rest));
    found.retain(|inline| !matches!(inline, Inline::Roman(text) if text.is_empty()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        let mut roff = Roff::new();
        add(&mut roff, text);
        roff.to_roff()
    }

    #[test]
    fn a_section_ends_with_the_next_heading_of_any_level() {
        let page = "# Page\n\n## One\n\nfirst\n\n### Inner\n\nsecond\n\n## Two\n\nthird\n";
        let text = |heading| section(page, heading).map(str::trim);
        assert_eq!((text("## One"), text("### Inner"), text("## Two")), (Some("first"), Some("second"), Some("third")));
        assert_eq!(text("## On"), None);
    }

    #[test]
    fn what_is_typed_is_bold_and_of_a_link_the_words_stay() {
        assert_eq!(
            rendered("run `a b` or\n[see `c`](x.md#y), *not* **d**"),
            ".PP\nrun \\fBa b\\fR or see \\fBc\\fR, \\fInot\\fR \\fBd\\fR\n"
        );
        assert_eq!(rendered("3 * 4 [x] `"), ".PP\n3 * 4 [x] `\n");
    }

    #[test]
    fn a_row_is_an_entry_and_a_list_has_its_items() {
        let table = "| code | what |\n| --- | --- |\n| 0 | done |\n| `a\\|b` | any |\n";
        assert_eq!(rendered(table), ".TP\n\\fB0\\fR\ndone\n.TP\n\\fBa|b\\fR\nany\n");
        let settings = "| s | d | w |\n| - | - | - |\n| `A` | unset | Does. |\n";
        assert_eq!(rendered(settings), ".TP\n\\fBA\\fR\nDoes.\n.br\nDefault: unset.\n");
        assert_eq!(rendered("- one\n  goes on\n- two"), ".IP \\(bu 2\none   goes on\n.IP \\(bu 2\ntwo\n");
    }
}
