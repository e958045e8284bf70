//! What the HTTP server of every Rust program that is compared does with the bytes it has read: `benches/peers` has this file as well.

use std::io;

/// Every peer answers with these bytes; the date is frozen.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\
Date: Thu, 20 Nov 2025 20:00:00 GMT\r\n\r\nHello, World!";

/// Answers every complete request in `bytes`; returns how many bytes they took.
pub(crate) fn answer(bytes: &[u8], answers: &mut Vec<u8>) -> io::Result<usize> {
    let mut used = 0;
    while used < bytes.len() {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&bytes[used..]).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))? {
            httparse::Status::Complete(n) => {
                std::hint::black_box(&request);
                answers.extend_from_slice(ANSWER);
                used += n;
            }
            httparse::Status::Partial => break,
        }
    }
    Ok(used)
}
