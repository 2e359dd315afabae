<?php
$link = new mysqli("db", "web", "secret", "shop");
foreach ($link->query("SELECT name FROM boats ORDER BY name") as $row) {
    echo $row["name"], "\n";
}
