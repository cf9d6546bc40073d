//! How the kernel's refusals read in our messages.

use std::io;

/// The reason alone: lower case, without the number that `std` puts behind it.
pub(crate) fn because(error: &io::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = reason.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "no reason was given".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::because;

    #[test]
    fn numbers_go_and_the_case_is_lowered() {
        let error = std::io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(because(&error), "no such file or directory");
        assert_eq!(
            because(&std::io::Error::other("nginx said no")),
            "nginx said no"
        );
    }
}
