"""Sessions that earlier versions began, and what an upgrade of them is compared by."""
