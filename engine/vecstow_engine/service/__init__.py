"""What a collection does, whoever asks: joins storage and index. Knows neither HTTP nor a terminal."""
