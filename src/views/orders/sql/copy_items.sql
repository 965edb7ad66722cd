copy order_items (order_id, line_no, item_id, sku, qty, price, tax_rate, net_line_total, gross_line_total)
from stdin (format binary)
