insert into order_items (order_id, line_no, item_id, sku, qty, price, tax_rate, net_line_total, gross_line_total)
select * from unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::numeric[], $6::numeric[], $7::numeric[],
                     $8::numeric[], $9::numeric[])
