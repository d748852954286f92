//! What a terminal would show of a program's output: carriage returns, backspaces and control sequences are acted on.

use std::iter::Peekable;
use std::str::Chars;

/// The most columns that the cursor may be moved to. A jump further right stays there.
const MOST_COLUMNS: usize = 4_096;

/// The most rows that one sequence moves the cursor.
const MOST_ROWS: usize = 1_000;

/// Returns the lines that a terminal shows once all of `text` was written to it, colours and all other attributes left out.
///
/// A carriage return lets what follows overwrite the line, as progress bars do; cursor movements and erasures (ECMA-48 CSI)
/// act as they would on a screen of endless height; other control sequences and control characters show nothing.
pub fn on_screen(text: &str) -> String {
    if !text.contains(|c: char| c.is_control() && c != '\n' && c != '\t') {
        return text.to_owned();
    }
    let mut screen = Screen::default();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => screen.next_line(),
            '\r' => screen.column = 0,
            '\u{8}' => screen.column = screen.column.saturating_sub(1),
            '\u{1b}' => screen.escape(&mut chars),
            '\t' => screen.put('\t'),
            c if c.is_control() => {}
            c => screen.put(c),
        }
    }
    screen.text()
}

/// The rows that were written, and the cursor.
#[derive(Default)]
struct Screen {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    fn line(&mut self) -> &mut Vec<char> {
        if self.rows.len() <= self.row {
            self.rows.resize_with(self.row + 1, Vec::new);
        }
        &mut self.rows[self.row]
    }

    fn put(&mut self, c: char) {
        let column = self.column;
        let line = self.line();
        if line.len() <= column {
            line.resize(column, ' ');
            line.push(c);
        } else {
            line[column] = c;
        }
        self.column += 1;
    }

    fn next_line(&mut self) {
        self.row += 1;
        self.column = 0;
        self.line();
    }

    /// Acts on the sequence after an escape character.
    fn escape(&mut self, chars: &mut Peekable<Chars<'_>>) {
        match chars.next() {
            Some('[') => {
                let mut parameters = String::new();
                while let Some(c) = chars.next_if(|c| (' '..='?').contains(c)) {
                    parameters.push(c);
                }
                if let Some(last) = chars.next_if(|c| ('@'..='~').contains(c)) {
                    self.control(&parameters, last);
                }
            }
            // A title, a link: up to a bell or a string terminator.
            Some(']') => {
                while let Some(c) = chars.next() {
                    if c == '\u{7}' {
                        break;
                    }
                    if c == '\u{1b}' {
                        chars.next_if_eq(&'\\');
                        break;
                    }
                }
            }
            // A character set: one more character.
            Some('(' | ')') => drop(chars.next()),
            _ => {}
        }
    }

    fn control(&mut self, parameters: &str, last: char) {
        let first = parameters.split(';').next().unwrap_or_default();
        let number: Option<usize> = first.parse().ok();
        let count = number.unwrap_or(1).max(1);
        match last {
            'A' | 'F' => self.row = self.row.saturating_sub(count),
            'B' | 'E' => self.row = (self.row + count.min(MOST_ROWS)).min(self.rows.len()),
            'C' => self.column = (self.column + count.min(MOST_COLUMNS)).min(MOST_COLUMNS),
            'D' => self.column = self.column.saturating_sub(count),
            'G' => self.column = (count - 1).min(MOST_COLUMNS),
            'J' if number.unwrap_or(0) == 0 => {
                let column = self.column;
                self.line().truncate(column);
                self.rows.truncate(self.row + 1);
            }
            'K' => self.erase_in_line(number.unwrap_or(0)),
            _ => {}
        }
        if matches!(last, 'E' | 'F') {
            self.column = 0;
        }
    }

    /// Erases from the cursor (0), up to it (1) or the whole line (2).
    fn erase_in_line(&mut self, what: usize) {
        let column = self.column;
        let line = self.line();
        match what {
            0 => line.truncate(column),
            1 => {
                let end = line.len().min(column + 1);
                line[..end].fill(' ');
            }
            _ => line.clear(),
        }
    }

    fn text(self) -> String {
        let mut text = String::new();
        for (number, row) in self.rows.into_iter().enumerate() {
            if number > 0 {
                text.push('\n');
            }
            text.extend(row);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_text_is_left_alone() {
        assert_eq!(on_screen("a\tb\nc\n"), "a\tb\nc\n");
        assert_eq!(on_screen("a\r\nb\r\n"), "a\nb\n");
    }

    #[test]
    fn what_follows_a_carriage_return_overwrites_the_line() {
        assert_eq!(
            on_screen("10%\r100%\rfailed: no route\n"),
            "failed: no route\n"
        );
        assert_eq!(on_screen("abcdef\rxy"), "xycdef");
        assert_eq!(on_screen("50% done\r\u{1b}[Kerror: x"), "error: x");
        assert_eq!(on_screen("ab\u{8}c"), "ac");
    }

    #[test]
    fn colours_titles_and_links_show_nothing() {
        assert_eq!(on_screen("\u{1b}[1;31mError\u{1b}[0m: x"), "Error: x");
        assert_eq!(on_screen("\u{1b}]0;title\u{7}a"), "a");
        assert_eq!(
            on_screen("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\"),
            "link"
        );
        assert_eq!(on_screen("\u{1b}(Ba\u{0}b"), "ab");
    }

    #[test]
    fn the_cursor_moves_up_to_redraw_a_list() {
        assert_eq!(
            on_screen("one\ntwo\n\u{1b}[2A\u{1b}[2Kdone\n"),
            "done\ntwo\n"
        );
        assert_eq!(on_screen("one\ntwo\n\u{1b}[2A\u{1b}[Jend"), "end");
        assert_eq!(on_screen("ab\u{1b}[1D\u{1b}[3Cx"), "ab  x");
    }

    proptest! {
        #[test]
        fn no_sequence_panics_or_grows_without_bound(text in "[\\x1b\\[\\]a-dA-K0-9;\\r\\n\\x08 é]{0,200}") {
            let shown = on_screen(&text);
            prop_assert!(shown.len() <= 200 * (MOST_COLUMNS + MOST_ROWS));
            let has_escape = shown.contains('\u{1b}');
            prop_assert!(!has_escape);
        }
    }
}
