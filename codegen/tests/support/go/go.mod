module example.com/mq9

go 1.25
