//! The parts of the README that are generated.

/// Returns `text` with `body` between the lines `<!-- NAME:begin -->` and `<!-- NAME:end -->`; none where it lacks them.
pub fn with_section(text: &str, name: &str, body: &str) -> Option<String> {
    let [begin, end] = ["begin", "end"].map(|side| format!("<!-- {name}:{side} -->"));
    let from = text.find(&begin)? + begin.len();
    let to = from + text[from..].find(&end)?;
    Some(format!("{}\n{body}{}", &text[..from], &text[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_rest_is_left_alone() {
        assert_eq!(with_section("no markers", "t", "new\n"), None);
        assert_eq!(
            with_section("<!-- t:end --><!-- t:begin -->", "t", ""),
            None
        );
        let text = "a\n<!-- t:begin -->\nold\n<!-- t:end -->\nb <!-- u:end -->\n";
        let once = with_section(text, "t", "new\n").expect("markers");
        assert_eq!(
            once,
            "a\n<!-- t:begin -->\nnew\n<!-- t:end -->\nb <!-- u:end -->\n"
        );
        assert_eq!(with_section(&once, "t", "new\n").as_ref(), Some(&once));
        assert_eq!(with_section(text, "u", "new\n"), None);
    }
}
