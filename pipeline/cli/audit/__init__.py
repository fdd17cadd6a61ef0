"""An independent judge of the topics: reads them, and shares no arithmetic with the product."""
