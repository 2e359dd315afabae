FLUSH PRIVILEGES;
CREATE DATABASE shop;
CREATE TABLE shop.boats (name VARCHAR(20));
INSERT INTO shop.boats VALUES ('sampan'), ('junk');
CREATE USER web@'%' IDENTIFIED BY 'secret';
GRANT SELECT ON shop.* TO web@'%';
