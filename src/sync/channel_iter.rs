//! The iterators over a receiver, the same ones for [`mpsc`](super::mpsc) and [`mpmc`](super::mpmc).

#![forbid(unsafe_code)]

/// Defines `Iter`, `TryIter`, `IntoIter` and the conversions into them for the module's `Receiver`.
macro_rules! receiver_iterators {
    () => {
        /// Receives until all senders are gone; see [`Receiver::iter`].
        #[derive(Debug)]
        pub struct Iter<'a, T: 'a> {
            rx: &'a Receiver<T>,
        }

        impl<'a, T> Iterator for Iter<'a, T> {
            type Item = T;

            fn next(&mut self) -> Option<T> {
                self.rx.recv().ok()
            }
        }

        /// Receives what is there now; see [`Receiver::try_iter`].
        #[derive(Debug)]
        pub struct TryIter<'a, T: 'a> {
            rx: &'a Receiver<T>,
        }

        impl<'a, T> Iterator for TryIter<'a, T> {
            type Item = T;

            fn next(&mut self) -> Option<T> {
                self.rx.try_recv().ok()
            }
        }

        /// Receives until all senders are gone, and owns the receiver.
        #[derive(Debug)]
        pub struct IntoIter<T> {
            rx: Receiver<T>,
        }

        impl<T> Iterator for IntoIter<T> {
            type Item = T;

            fn next(&mut self) -> Option<T> {
                self.rx.recv().ok()
            }
        }

        impl<'a, T> IntoIterator for &'a Receiver<T> {
            type Item = T;
            type IntoIter = Iter<'a, T>;

            fn into_iter(self) -> Iter<'a, T> {
                self.iter()
            }
        }

        impl<T> IntoIterator for Receiver<T> {
            type Item = T;
            type IntoIter = IntoIter<T>;

            fn into_iter(self) -> IntoIter<T> {
                IntoIter { rx: self }
            }
        }

        impl<T> Receiver<T> {
            /// Receives until all senders are gone.
            ///
            /// # Cancellation
            /// As [`recv`](Receiver::recv), at every message.
            pub fn iter(&self) -> Iter<'_, T> {
                Iter { rx: self }
            }

            /// Receives what is there now, without waiting.
            pub fn try_iter(&self) -> TryIter<'_, T> {
                TryIter { rx: self }
            }
        }
    };
}

pub(super) use receiver_iterators;
